"""``kubectl inferencemodel ui``: what the commands show, as pages on this machine.

Pages are another view of the same pure functions that the commands use. Pure: `fleet`, `timeline`,
`offers`, `manifest`, `forms`, `snippets`. What talks: `feed` (the API server), `doing` (actions),
`app` (the browser) and, for the pages of one model, `models`, behind `guard`.
"""

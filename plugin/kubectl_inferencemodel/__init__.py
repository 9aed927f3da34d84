"""kubectl inferencemodel: InferenceModels for people and for pipelines."""

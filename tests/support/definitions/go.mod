// Pins the modules whose definitions of kinds the tests apply; nothing here is built.
module inferencemodel.dev/tests/support/definitions

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0

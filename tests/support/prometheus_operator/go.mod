// Pins what tests read: the definitions in example/prometheus-operator-crd.
module inferencemodel.dev/tests/support/prometheus_operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0

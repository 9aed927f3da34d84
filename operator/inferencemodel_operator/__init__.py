"""The operator: turns an InferenceModel into its children, decides versions, reports status."""

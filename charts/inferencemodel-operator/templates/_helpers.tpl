{{- /* The labels that every object has in manifests/base, and Helm's own. */}}
{{- define "labels" -}}
app.kubernetes.io/name: inferencemodel-operator
app.kubernetes.io/part-of: inferencemodel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* An image's full name: (list $ .Values.image). */}}
{{- define "image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* An object of files/ with the chart's labels: (list $ $object $namespace); the namespace is
empty for what has none. The files are those of manifests/, so that there is one source. */}}
{{- define "object" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $namespace := index . 2 -}}
{{- $metadata := $object.metadata -}}
{{- $labels := merge (include "labels" $root | fromYaml) ($metadata.labels | default dict) -}}
{{- $_ := set $metadata "labels" $labels -}}
{{- if $namespace }}{{ $_ := set $metadata "namespace" $namespace }}{{ end -}}
{{- range $object.subjects }}{{ $_ := set . "namespace" $root.Release.Namespace }}{{ end -}}
{{ toYaml $object }}
{{- end }}

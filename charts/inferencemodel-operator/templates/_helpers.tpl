{{- /* What a schema can't say in words. */}}
{{- define "inferencemodel-operator.check" -}}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) -}}
  {{- fail "serviceAccount.create is false, so serviceAccount.name has to name the one that is there" -}}
{{- end -}}
{{- $own := include "inferencemodel-operator.ownLabels" . | fromYaml -}}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "monitoring.labels" .Values.monitoring.labels -}}
  {{- range $key, $_ := $labels -}}
    {{- if hasKey $own $key -}}
      {{- fail (printf "%s: %s is a label of the chart's own; choose another one" $value $key) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
  {{- if has .name (list "POD_NAME" "POD_NAMESPACE") -}}
    {{- fail (printf "extraEnv: %s is set by the chart; remove it" .name) -}}
  {{- end -}}
  {{- if and (hasKey . "value") (hasKey . "valueFrom") -}}
    {{- fail (printf "extraEnv: %s has value and valueFrom; remove one of them" .name) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{- /* What the operator is called: the chart's name, or nameOverride. */}}
{{- define "inferencemodel-operator.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{- /* The name of the release's objects in its own namespace. Release `inferencemodel` of this chart
makes `inferencemodel-operator`, release `blue` makes `blue-inferencemodel-operator`. A Service has
that name too, so it is a DNS label that begins with a letter. */}}
{{- define "inferencemodel-operator.fullname" -}}
{{- $name := include "inferencemodel-operator.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
  {{- if contains $name .Release.Name -}}
    {{- $full = .Release.Name -}}
  {{- else if hasPrefix (printf "%s-" .Release.Name) $name -}}
    {{- $full = $name -}}
  {{- else -}}
    {{- $full = printf "%s-%s" .Release.Name $name -}}
  {{- end -}}
{{- end -}}
{{- $full = $full | replace "." "-" | trunc 63 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
  {{- fail (printf "a Service can't be called %s, as it has to begin with a letter: set fullnameOverride, or choose another name for the release" $full) -}}
{{- end -}}
{{ $full }}
{{- end }}

{{- /* The name of what another release may have too: what is the whole cluster's, and what is in the
namespaces that are served. No namespace and no name has a colon, so no two of them are one. */}}
{{- define "inferencemodel-operator.clusterName" -}}
{{ .Release.Namespace }}:{{ include "inferencemodel-operator.fullname" . }}
{{- end }}

{{- define "inferencemodel-operator.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "inferencemodel-operator.fullname" .) }}
{{- end }}

{{- /* What selects the release's own pods. */}}
{{- define "inferencemodel-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "inferencemodel-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* The labels that every object has in manifests/base, and Helm's own. */}}
{{- define "inferencemodel-operator.ownLabels" -}}
{{ include "inferencemodel-operator.selectorLabels" . }}
app.kubernetes.io/part-of: inferencemodel
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
{{- end }}

{{- define "inferencemodel-operator.labels" -}}
{{ include "inferencemodel-operator.ownLabels" . }}
{{- with .Values.commonLabels }}
{{ include "inferencemodel-operator.strings" . }}
{{- end }}
{{- end }}

{{- /* A map whose values are strings, whatever they were given as: labels, annotations, selectors. */}}
{{- define "inferencemodel-operator.strings" -}}
{{- $strings := dict -}}
{{- range $key, $value := . }}{{ $_ := set $strings $key ($value | toString) }}{{ end -}}
{{ toYaml $strings }}
{{- end }}

{{- /* An image's full name: (list $ .Values.image). */}}
{{- define "inferencemodel-operator.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* An object of files/ with the chart's labels: (list $ $object $name $namespace); the namespace
is empty for what has none. The files are those of manifests/, so that there is one source. */}}
{{- define "inferencemodel-operator.object" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $metadata := $object.metadata -}}
{{- $own := include "inferencemodel-operator.ownLabels" $root | fromYaml -}}
{{- $labels := merge $own ($metadata.labels | default dict) (include "inferencemodel-operator.labels" $root | fromYaml) -}}
{{- $_ := set $metadata "labels" $labels -}}
{{- $_ = set $metadata "name" (index . 2) -}}
{{- with index . 3 }}{{ $_ = set $metadata "namespace" . }}{{ end -}}
{{ toYaml $object }}
{{- end }}

{{- /* The same for monitoring, with monitoring.labels. */}}
{{- define "inferencemodel-operator.monitor" -}}
{{- $root := index . 0 -}}
{{- $object := index . 1 -}}
{{- $labels := merge (include "inferencemodel-operator.strings" $root.Values.monitoring.labels | fromYaml) ($object.metadata.labels | default dict) -}}
{{- $_ := set $object.metadata "labels" $labels -}}
{{ include "inferencemodel-operator.object" (list $root $object (index . 2) $root.Release.Namespace) }}
{{- end }}

{{- /* The name of another release whose operator is there, and which the CRD belongs to; empty when
there is none, and while a chart is only rendered. */}}
{{- define "inferencemodel-operator.crdOwner" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "inferencemodels.inferencemodel.dev" -}}
{{- $annotations := dig "metadata" "annotations" dict ($crd | default dict) -}}
{{- $release := index $annotations "meta.helm.sh/release-name" | default "" -}}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" -}}
{{- $ours := and (eq $release .Release.Name) (eq $namespace .Release.Namespace) -}}
{{- if and $release $namespace (not $ours) -}}
  {{- range dig "items" list (lookup "apps/v1" "Deployment" $namespace "" | default dict) -}}
    {{- $labels := .metadata.labels | default dict -}}
    {{- if and (eq (index $labels "app.kubernetes.io/instance" | default "") $release) (eq (index $labels "app.kubernetes.io/part-of" | default "") "inferencemodel") -}}
{{ $release }} of namespace {{ $namespace }}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

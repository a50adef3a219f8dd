{{- define "dynamo-metrics.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The labels for selectors, which never change. */ -}}
{{- define "dynamo-metrics.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dynamo-metrics.labels" -}}
{{ include "dynamo-metrics.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: dynamo
{{- end -}}

{{- define "dynamo-metrics.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "dynamo-metrics.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* The Kubernetes namespace that is watched. */ -}}
{{- define "dynamo-metrics.watched" -}}
{{- .Values.kubernetesNamespace | default .Release.Namespace -}}
{{- end -}}

{{- /* The Role's name. In another namespace it has the release's namespace as a prefix, because releases in several namespaces may have the same name. */ -}}
{{- define "dynamo-metrics.role" -}}
{{- $name := include "dynamo-metrics.fullname" . -}}
{{- eq (include "dynamo-metrics.watched" .) .Release.Namespace | ternary $name (printf "%s-%s" .Release.Namespace $name) -}}
{{- end -}}

{{- define "dynamo-metrics.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* The scheme of the HTTP server. */ -}}
{{- define "dynamo-metrics.scheme" -}}
{{- ternary .Values.web.scheme "http" (not (empty .Values.web.secrets)) -}}
{{- end -}}

{{- /* The port of an address (list ADDRESS DEFAULT). */ -}}
{{- define "dynamo-metrics.port" -}}
{{- regexFind ":[0-9]+(/|$)" (index . 0) | trimPrefix ":" | trimSuffix "/" | default (index . 1) -}}
{{- end -}}

{{- /* The ports of a comma list of NATS servers. */ -}}
{{- define "dynamo-metrics.natsPorts" -}}
{{- range $i, $server := splitList "," . -}}
{{- if $i }},{{ end -}}
{{- include "dynamo-metrics.port" (list (trim $server) "4222") -}}
{{- end -}}
{{- end -}}

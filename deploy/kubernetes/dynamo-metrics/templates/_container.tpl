{{- /* The program's arguments. */ -}}
{{- define "dynamo-metrics.args" -}}
{{- if eq (toString .Values.enabled) "false" -}}
{{- fail "enabled: the condition of a parent chart switches this chart off, and there is none that does" -}}
{{- end -}}
{{- if and .Values.nats.secret (not .Values.nats.server) -}}
{{- fail "nats.secret: needs nats.server, which says where NATS is" -}}
{{- end -}}
- --discovery=kubernetes
- {{ printf "--kubernetes-namespace=%s" (include "dynamo-metrics.watched" .) | quote }}
- {{ printf "--namespace=%s" .Values.dynamoNamespace | quote }}
- --standby
{{- /* YAML parses on and off as true and false. */}}
- {{ printf "--scrape-workers=%v" .Values.scrapeWorkers | replace "true" "on" | replace "false" "off" | quote }}
- --max-workers={{ int .Values.maxWorkers }}
- --metrics-port=9091
{{- with .Values.nats.server }}
- {{ printf "--nats-server=%s" . | quote }}
{{- end }}
{{- with .Values.zmqBroker }}
- {{ printf "--zmq-broker=%s" . | quote }}
{{- end }}
{{- with .Values.push.url }}
- --push
- {{ printf "--push-url=%s" . | quote }}
- {{ printf "--push-interval=%v" $.Values.push.interval | quote }}
{{- end }}
{{- if .Values.web.secrets }}
- --web.config.file=/etc/dynamo-metrics/web/web.yml
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "dynamo-metrics.env" -}}
- name: DYN_LOG
  value: {{ .Values.log.filter | quote }}
{{- if .Values.log.json }}
- name: DYN_LOGGING_JSONL
  value: "1"
{{- end }}
{{- if eq .Values.discoveryMode "container" }}
- name: DYN_KUBE_DISCOVERY_MODE
  value: container
{{- end }}
{{- with .Values.nats.secret }}
{{- range list "NATS_AUTH_USERNAME" "NATS_AUTH_PASSWORD" "NATS_AUTH_TOKEN" "NATS_AUTH_NKEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.nats.secret }}
      key: {{ . }}
      optional: true # the Secret has the keys of one way to authenticate
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* A probe (list . PATH). */ -}}
{{- define "dynamo-metrics.probe" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.web.secrets (eq $root.Values.web.probe "tcp") -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: metrics
  {{- if eq (include "dynamo-metrics.scheme" $root) "https" }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
{{- end -}}

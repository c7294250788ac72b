{{/* Name of everything in the release's namespace. The longest suffix is "-webhook-certificates". */}}
{{- define "ackwell.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name }}{{ $name = .Release.Name }}{{ else }}{{ $name = printf "%s-%s" .Release.Name $name }}{{ end -}}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of what belongs to no namespace: the same release name may exist in another. */}}
{{- define "ackwell.clustername" -}}
{{ include "ackwell.fullname" . }}.{{ .Release.Namespace }}
{{- end -}}

{{- define "ackwell.webhook.service" -}}
{{ include "ackwell.fullname" . }}-webhook
{{- end -}}

{{- define "ackwell.webhook.secret" -}}
{{ include "ackwell.fullname" . }}-webhook-certificates
{{- end -}}

{{/* Never change: the Deployment's selector cannot. */}}
{{- define "ackwell.selectorLabels" -}}
app.kubernetes.io/name: ackwell
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "ackwell.labels" -}}
{{ include "ackwell.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Arguments: root, name of the image, digest. */}}
{{- define "ackwell.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $parts := without (list $image.registry $image.repository (index . 1)) "" -}}
{{- join "/" $parts }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- with index . 2 }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "ackwell.test.namespace" -}}
{{- $made := printf "%s-test" (include "ackwell.fullname" .) -}}
{{- .Values.test.namespace | default (first .Values.watchNamespaces) | default $made -}}
{{- end -}}

{{/* Rules for the Queues of a namespace, or of all; docs/install.md says why each is needed. */}}
{{- define "ackwell.rules" -}}
- apiGroups: [ackwell.dev]
  resources: [queues]
  verbs: [get, list, watch]
- apiGroups: [ackwell.dev]
  resources: [queues/status, queuetasks/status]
  verbs: [patch]
- apiGroups: [ackwell.dev]
  resources: [queuetasks]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "ackwell.test.limits" -}}
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 64Mi}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

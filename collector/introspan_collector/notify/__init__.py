"""Notices in; Alertmanager and webhooks told."""

"""What the Pulumi engine runs."""

from infra.stack import deploy

deploy()

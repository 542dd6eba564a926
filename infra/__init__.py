"""Which servers, networks, firewalls, volumes and tailnet keys exist: the program that `pulumi up` runs."""

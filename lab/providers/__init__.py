"""Stand-ins for Pulumi's hcloud and tailscale plugins, for machines that cannot download the real ones.

They make the real plugins' decisions (`decisions.TABLE`) and the same HTTP calls, and talk to this machine only. The
lab puts them into a private PULUMI_HOME where no real plugin is at hand (`lab.engine`).
"""

"""The rehearsal: real Debian hosts on one Linux machine, in place of a cloud."""

"""Declared machines, one file for each family. A file is found by being here."""

#: Which file describes the CPUs of an architecture (``platform.machine()``): it is asked first for
#: the host, which saves reading all others. Files not named here are asked after it.
HOSTS = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}

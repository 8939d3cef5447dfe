"""Commands, attached clients and forwarded ports by the Python client."""

import socket
import sys

from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config()
api = client.CoreV1Api()
name, namespace = sys.argv[1], "default"

print(stream(api.connect_get_namespaced_pod_exec, name, namespace, command=["echo", "whole"],
             stdin=False, stdout=True, stderr=True, tty=False).strip())

shell = stream(api.connect_get_namespaced_pod_exec, name, namespace, command=["sh"],
               stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
shell.write_stdin("echo said; echo wrong >&2; exit 6\n")
shell.run_forever(timeout=60)
print(shell.read_stdout().strip(), shell.read_stderr().strip(), shell.returncode)
shell.close()

forwarded = portforward(api.connect_get_namespaced_pod_portforward, name, namespace, ports="8000")
connection = forwarded.socket(8000)
connection.setblocking(True)
connection.sendall(b"one line\n")
print(connection.recv(100).decode().strip())
connection.close()
print(forwarded.error(8000))

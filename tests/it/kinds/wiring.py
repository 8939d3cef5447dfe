"""Stands for TensorFlow and Paddle: meets the other processes where the variables of the job say they are."""

import json
import os
import socket
import sys
import threading
import time

SECONDS = 60


def call(address, text):
    """Says something to a process once it listens, and returns its answer."""
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(text.encode() + b"\n")
                return connection.makefile().readline().strip()
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{address} cannot be reached: {error}")
            time.sleep(0.05)


def listen(port, name, callers, heard):
    """Answers so many callers with this process's name."""
    with socket.create_server(("", port)) as server:
        server.settimeout(SECONDS)
        for _ in range(callers):
            connection, _ = server.accept()
            with connection:
                heard.append(connection.makefile().readline().strip())
                connection.sendall(name.encode() + b"\n")


def meet(name, own, others, callers):
    """Calls the others, is called by so many, and prints who was met."""
    heard = []
    port = int(own.rsplit(":", 1)[1]) if own else 0
    ear = threading.Thread(target=listen, args=(port, name, callers, heard))
    ear.start()
    answers = [call(address, name) for address in others]
    ear.join()
    print(f"{name} called {', '.join(sorted(answers)) or 'nobody'}; heard {', '.join(sorted(heard)) or 'nobody'}")


def tensorflow():
    config = json.loads(os.environ["TF_CONFIG"])
    task, cluster = config["task"], config["cluster"]
    addresses = {f"{type_}-{index}": at for type_, all_ in cluster.items() for index, at in enumerate(all_)}
    name = f"{task['type']}-{task['index']}"
    own = addresses.pop(name, None)
    # An evaluator is outside the cluster: it calls, and nobody calls it.
    callers = len(addresses) + int(os.environ.get("EVALUATORS", "0")) if own else 0
    meet(name, own, addresses.values(), callers)


def paddle():
    master, nodes = os.environ["PADDLE_MASTER"], int(os.environ["PADDLE_NNODES"])
    name = socket.gethostname()
    if master.startswith(os.environ.get("POD_IP_DUMMY", "?") + ":"):
        meet(name, master, [], nodes - 1)
    else:
        meet(name, None, [master], 0)


{"tensorflow": tensorflow, "paddle": paddle}[sys.argv[1]]()

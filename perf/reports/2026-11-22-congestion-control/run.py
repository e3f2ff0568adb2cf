#!/usr/bin/env python3
"""CPU of both ends of a loopback connection under cubic and bbr, in pairs A B A B; the setting is that of the sockets alone.
Prints a JSON line per run."""
import json, os, resource, socket, sys

PAIRS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
SHAPES = {"bulk": (256 << 10, 0, 4096), "rounds": (16 << 10, 64, 20000)}  # bytes sent, bytes answered, how often


def ended(sock, count):
    view = memoryview(bytearray(256 << 10))
    while count:
        got = sock.recv_into(view, min(count, len(view)))
        if not got:
            sys.exit("the connection ended early")
        count -= got


def receive(listener, algorithm, sent, answered, times):
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm)
    answer = bytes(answered)
    if answered:
        for _ in range(times):
            ended(sock, sent)
            sock.sendall(answer)
    else:
        ended(sock, sent * times)


def run(shape, algorithm):
    sent, answered, times = SHAPES[shape]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        receiver = os.fork()
        if receiver == 0:
            receive(listener, algorithm, sent, answered, times)
            os._exit(0)
        sender = os.fork()
        if sender == 0:
            with socket.socket() as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, algorithm)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect(listener.getsockname())
                data = bytes(sent)
                for _ in range(times):
                    sock.sendall(data)
                    ended(sock, answered)
            os._exit(0)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for child in (sender, receiver):
            if os.waitpid(child, 0)[1]:
                sys.exit("a run failed")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


for shape in SHAPES:
    for pair in range(-1, PAIRS):  # the first warms up
        for algorithm in (b"cubic", b"bbr"):
            cpu = run(shape, algorithm)
            if pair >= 0:
                print(json.dumps({"shape": shape, "pair": pair, "algorithm": algorithm.decode(), "cpu_seconds": round(cpu, 4)}), flush=True)

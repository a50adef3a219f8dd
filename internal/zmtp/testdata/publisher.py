"""A real libzmq publisher for real_test.go: publisher.py KIND ENDPOINT [COUNT].

It prints the address that it listens on, publishes as its KIND requires, and exits when its
standard input is closed.
"""
import os
import sys
import threading
import time

import zmq

kind, endpoint = sys.argv[1:3]
count = int(sys.argv[3]) if len(sys.argv) > 3 else 0
context = zmq.Context()


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


def bound(socket, endpoint, timeout):
    """Binds with heartbeats; a peer is disconnected if nothing is received for timeout (ms)."""
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.IPV6, "[" in endpoint)
    socket.set(zmq.HEARTBEAT_IVL, 100)
    socket.set(zmq.HEARTBEAT_TIMEOUT, timeout)
    socket.set(zmq.HEARTBEAT_TTL, timeout)
    socket.bind(endpoint)
    return socket


def listening(socket):
    print("listening " + socket.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode(), flush=True)


def event(n, topic=b"kv_metrics"):
    return [topic, (42).to_bytes(8, "big"), n.to_bytes(8, "big"), b"\x01" + bytes([n % 251]) * (n % 300)]


def count_up(socket):
    """Publishes a hundred events a second, forever."""
    n = 0
    while True:
        socket.send_multipart(event(n))
        n += 1
        time.sleep(0.01)


def flood():
    """Publishes COUNT events as fast as it can, once there is a subscription."""
    xpub = bound(context.socket(zmq.XPUB), endpoint, 5000)
    listening(xpub)
    print("subscription " + xpub.recv().hex(), flush=True)
    for n in range(count):
        xpub.send_multipart(event(n))
    threading.Event().wait()


def quiet():
    """Publishes one event after two seconds. In that time the subscriber must answer 20
    pings, each within 500 ms."""
    xpub = bound(context.socket(zmq.XPUB), endpoint, 500)
    listening(xpub)
    print("subscription " + xpub.recv().hex(), flush=True)
    time.sleep(2)
    xpub.send_multipart(event(0))
    threading.Event().wait()


def tick():
    pub = bound(context.socket(zmq.PUB), endpoint, 1000)
    listening(pub)
    count_up(pub)


def broker():
    """Runs a broker between two publishers and the subscriber."""
    xpub = bound(context.socket(zmq.XPUB), endpoint, 1000)
    xsub = bound(context.socket(zmq.XSUB), "tcp://127.0.0.1:*", 1000)
    listening(xpub)
    for topic in b"namespace.a.kv_metrics", b"namespace.b.kv_metrics":
        threading.Thread(target=publish_to_broker, args=(xsub.get(zmq.LAST_ENDPOINT), topic), daemon=True).start()
    zmq.proxy(xsub, xpub)


def publish_to_broker(endpoint, topic):
    pub = context.socket(zmq.PUB)
    pub.connect(endpoint)
    n = 0
    while True:
        pub.send_multipart(event(n, topic))
        n += 1
        time.sleep(0.01)


def pusher():
    push = bound(context.socket(zmq.PUSH), endpoint, 1000)
    listening(push)
    threading.Event().wait()


def curve():
    pub = context.socket(zmq.PUB)
    pub.curve_publickey, pub.curve_secretkey = zmq.curve_keypair()
    pub.curve_server = True
    bound(pub, endpoint, 1000)
    listening(pub)
    threading.Event().wait()


threading.Thread(target=end_with_stdin, daemon=True).start()
{f.__name__: f for f in (flood, quiet, tick, broker, pusher, curve)}[kind]()

"""fastcopy 0.1.8 as a test peer: its server on any port, its sender and receiver without ssh.

    fastcopy_peer.py serve --port PORT
    fastcopy_peer.py push --port PORT [--connections 1..8] -- SRC DST
    fastcopy_peer.py pull --port PORT [--connections 1..8] -- SRC DST

fastcopy's own command line reaches a server through ssh only, and its server listens on one fixed
port; everything from the first packet on is fastcopy's own code.
Exit codes: 0 the transfer ended, 1 it did not within 60 s, 2 the peer broke the protocol or left.
"""

import argparse
import json
import logging
import os
import socket
import sys
import threading
import time

LOOPBACK = "127.0.0.1"
PATIENCE = 60
USER = "root"


def serve(port):
    from fastcopy import server

    # The address is a constant that the server module has imported by value.
    server.SERVER_ADDR = (LOOPBACK, port)
    running = server.Server(max_conn=128)
    running.start()
    running.join()
    return 1  # It only returns when it could not bind.


def dial(port):
    connection = socket.create_connection((LOOPBACK, port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def open_session(connection, flag, request):
    """Sends the opening request; returns the session id and what came before it."""
    from fastcopy.network import Flag, Packet, recv_pkt, send_pkt

    send_pkt(connection, Packet.load(flag, json.dumps(request)))
    early = []
    while True:
        packet = recv_pkt(connection)
        if packet.flag == Flag.SID:
            return packet.unpack_body()[0], early
        if packet.flag == Flag.EXCEPTION:
            raise ValueError(packet.unpack_body()[0])
        # A version 1 server starts its sender before it answers, so that MONOFILE and any
        # number of infos may overtake the session id.
        early.append(packet)


def transfer(way, src, dst, count, port):
    from fastcopy.network import Flag, Packet, send_pkt
    from fastcopy.transfer import Receiver, Sender

    first = dial(port)
    if way == "push":
        sid, early = open_session(first, Flag.PUSH, {"user": USER, "dst": dst})
        porter = Sender(sid, USER, [src], count)
    else:
        request = {"user": USER, "srcs": [src], "include": "*", "exclude": []}
        sid, early = open_session(first, Flag.PULL, request)
        porter = Receiver(sid, USER, dst, count)
    for packet in early:
        porter.conn_pool.recv_q.put(packet)

    # A version 1 receiver gives up unless MONOFILE arrives first of all packets on all connections,
    # so the others join only after the first has carried something.
    porter.conn_pool.add(first)
    porter.start()
    if way == "push":
        wait_until_used(porter.conn_pool, first)
    for _ in range(count - 1):
        more = dial(port)
        send_pkt(more, Packet.load(Flag.ATTACH, sid))
        porter.conn_pool.add(more)
    porter.join(PATIENCE)
    return 1 if porter.is_alive() else 0


def wait_until_used(pool, connection):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if pool.sender.get_key(connection).data.n_sent:
                return
        except (KeyError, RuntimeError):
            return  # The session is over already.
        time.sleep(0.001)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=["serve", "push", "pull"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, choices=range(1, 9), default=1)
    parser.add_argument("paths", nargs="*")
    asked = parser.parse_intermixed_args()
    if len(asked.paths) != (0 if asked.way == "serve" else 2):
        parser.error("push and pull take SRC and DST, serve takes nothing")
    return asked


def main():
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    failures = []
    threading.excepthook = lambda told: (
        failures.append(told),
        logging.error("thread died", exc_info=(told.exc_type, told.exc_value, told.exc_traceback)),
    )
    asked = arguments()
    if asked.way == "serve":
        return serve(asked.port)
    try:
        code = transfer(asked.way, *asked.paths, asked.connections, asked.port)
    except (OSError, ValueError) as error:
        logging.error("%s", error)
        return 2
    return code or (2 if failures else 0)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # fastcopy leaves threads behind that wait for ever.

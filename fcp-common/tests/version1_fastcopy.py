"""fastcopy 0.1.8's own Sender, Receiver and Server over plain sockets, for version1_fastcopy.rs.

push|pull SRC_OR_DST N PORT   connects N times to a server on 127.0.0.1 and runs until it is done
serve                         fastcopy's Server on a free port, which is printed
"""
import json
import socket
import sys
import time

from fastcopy import server
from fastcopy.network import Flag, Packet, recv_pkt, send_pkt
from fastcopy.transfer import Receiver, Sender


def connect(port):
    sock = socket.create_connection(('127.0.0.1', port))
    sock.settimeout(60)
    return sock


def talk(mode, path, n, port):
    first = connect(port)
    if mode == 'push':
        send_pkt(first, Packet.load(Flag.PUSH, json.dumps({'user': 'root', 'dst': 'x'})))
        (sid,) = recv_pkt(first).unpack_body()
        porter = Sender(sid, 'root', [path], n)
    else:
        ask = {'user': 'root', 'srcs': ['x'], 'include': '*', 'exclude': []}
        send_pkt(first, Packet.load(Flag.PULL, json.dumps(ask)))
        (sid,) = recv_pkt(first).unpack_body()
        porter = Receiver(sid, 'root', path, n)
    porter.conn_pool.add(first)
    porter.start()
    for _ in range(n - 1):
        conn = connect(port)
        send_pkt(conn, Packet.load(Flag.ATTACH, sid))
        porter.conn_pool.add(conn)
    porter.join(60)
    return 1 if porter.is_alive() else 0


def serve():
    free = socket.socket()
    free.bind(('127.0.0.1', 0))
    server.SERVER_ADDR = free.getsockname()
    free.close()
    running = server.Server(128)
    running.start()
    while True:
        try:
            connect(server.SERVER_ADDR[1]).close()
            break
        except OSError:
            time.sleep(0.05)
    print(server.SERVER_ADDR[1], flush=True)
    # Until the test closes our standard input.
    sys.stdin.read()


if __name__ == '__main__':
    if sys.argv[1] == 'serve':
        serve()
    else:
        sys.exit(talk(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

"""Opens COUNT keep-alive HTTP connections, one request each, then stays idle until stdin ends."""
import socket
import sys

port, count = int(sys.argv[1]), int(sys.argv[2])
clients = []
for _ in range(count):
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n")
    clients.append(client)
for client in clients:
    if not client.recv(4096).startswith(b"HTTP/1.1 200"):
        sys.exit("an idle client got no answer")
print("idle", flush=True)
sys.stdin.read()

"""A file over HTTP/3 by aioquic: certificate, key, port, length of the file. Byte n is (n * 31 + n // 251) % 256."""

import asyncio
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated

CERTIFICATE, KEY, PORT, LENGTH = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
FILE = bytes((n * 31 + n // 251) % 256 for n in range(LENGTH))


class Server(QuicConnectionProtocol):
    http = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is not None:
            for received in self.http.handle_event(event):
                if isinstance(received, HeadersReceived):
                    self.answer(received)

    def answer(self, request):
        fields = dict(request.headers)
        first, last, status = 0, LENGTH - 1, b"200"
        if b"range" in fields:
            start, end = fields[b"range"].removeprefix(b"bytes=").split(b"-")
            status = b"206"
            if start:
                first, last = int(start), min(int(end or last), last)
            else:
                first = LENGTH - min(int(end), LENGTH)
        head = [
            (b":status", status),
            (b"content-length", str(last - first + 1).encode()),
            (b"etag", b'"1"'),
            (b"accept-ranges", b"bytes"),
        ]
        if status == b"206":
            head.append((b"content-range", f"bytes {first}-{last}/{LENGTH}".encode()))
        self.http.send_headers(request.stream_id, head)
        self.http.send_data(request.stream_id, FILE[first : last + 1], True)
        self.transmit()


async def main():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    configuration.load_cert_chain(CERTIFICATE, KEY)
    await serve("127.0.0.1", PORT, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Future()


asyncio.run(main())

"""The few requests of the Kafka protocol that measuring needs beside corelane-load, one at a time on a blocking socket.

Versions are old ones without tagged fields. Sources: Kafka's message schemas. Answers are dicts by (topic, partition).
"""
import contextlib, socket, struct, time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, CREATE_TOPICS, INCREMENTAL_ALTER_CONFIGS, DESCRIBE_LOG_DIRS = 0, 1, 2, 3, 19, 44, 35
EARLIEST, LATEST = -2, -1
TOPIC_RESOURCE, SET = 2, 0


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def array(items):
    items = list(items)
    return struct.pack(">i", len(items)) + b"".join(items)


def by_topic(partitions, entry):
    """[name, [entry of (topic, partition)]] of each topic, in order."""
    topics = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(entry((topic, partition)))
    return array(text(topic) + array(entries) for topic, entries in topics.items())


class Answer:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, format):
        """One value; a tuple of several."""
        values = struct.unpack_from(">" + format, self.data, self.at)
        self.at += struct.calcsize(">" + format)
        return values[0] if len(values) == 1 else values

    def bytes(self, size):
        self.at += max(size, 0)
        return self.data[self.at - max(size, 0):self.at]

    def text(self):
        return self.bytes(self.take("h")).decode()

    def each(self):
        return range(max(self.take("i"), 0))


class WireError(Exception):
    """An error code of the broker."""


def check(code, what):
    if code:
        raise WireError(f"{what}: error {code}")


class Wire:
    """A connection to a broker on this machine."""

    def __init__(self, port, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            # Before connecting: the window that the other side is told follows from it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, key, version, body):
        request = struct.pack(">hhi", key, version, 1) + text("measure") + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)

    def ask(self, key, version, body):
        self.send(key, version, body)
        answer = Answer(self.received(struct.unpack(">i", self.received(4))[0]))
        answer.take("i")
        return answer

    def received(self, size):
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise OSError("the broker closed the connection")
            data += piece
        return bytes(data)

    def create_topic(self, topic, partitions, configs={}):
        settings = array(text(name) + text(str(value)) for name, value in configs.items())
        answer = self.ask(CREATE_TOPICS, 2, array([text(topic) + struct.pack(">ihi", partitions, 1, 0) + settings]) + struct.pack(">ib", 60_000, 0))
        answer.take("ii")
        answer.text()
        check(answer.take("h"), f"CreateTopics {topic}")

    def alter_topic(self, topic, configs):
        settings = array(text(name) + struct.pack(">b", SET) + text(str(value)) for name, value in configs.items())
        answer = self.ask(INCREMENTAL_ALTER_CONFIGS, 0, array([struct.pack(">b", TOPIC_RESOURCE) + text(topic) + settings]) + b"\0")
        answer.take("ii")
        check(answer.take("h"), f"IncrementalAlterConfigs {topic}")

    def led_partitions(self, topics):
        """The partitions that have a leader and no error. No topic is made by asking."""
        answer = self.ask(METADATA, 4, array(map(text, topics)) + b"\0")
        answer.take("i")
        for _ in answer.each():
            answer.take("i"), answer.text(), answer.take("i"), answer.text()
        answer.text()
        answer.take("i")
        led = set()
        for _ in answer.each():
            error, topic = answer.take("h"), answer.text()
            answer.take("b")
            for _ in answer.each():
                partition_error, partition, leader = answer.take("hii")
                for _ in range(2):
                    answer.bytes(4 * len(answer.each()))
                if error == partition_error == 0 and leader >= 0:
                    led.add((topic, partition))
        return led

    def offsets(self, partitions, which):
        """The offsets of those that answer one."""
        body = struct.pack(">i", -1) + by_topic(partitions, lambda at: struct.pack(">iq", at[1], which))
        answer = self.ask(LIST_OFFSETS, 1, body)
        offsets = {}
        for _ in answer.each():
            topic = answer.text()
            for _ in answer.each():
                partition, error, _, offset = answer.take("ihqq")
                if error == 0:
                    offsets[topic, partition] = offset
        return offsets

    def send_fetch(self, offsets, partition_bytes_max, bytes_max=50 << 20):
        """Asks for records from `offsets` on, by (topic, partition); never waits for more."""
        body = struct.pack(">iiiib", -1, 0, 0, bytes_max, 0)
        self.send(FETCH, 4, body + by_topic(offsets, lambda at: struct.pack(">iqi", at[1], offsets[at], partition_bytes_max)))

    def fetch(self, offsets, partition_bytes_max):
        """The record batches of those that answer any; the last one may be cut."""
        self.send_fetch(offsets, partition_bytes_max)
        answer = Answer(self.received(struct.unpack(">i", self.received(4))[0]))
        answer.take("ii")
        batches = {}
        for _ in answer.each():
            topic = answer.text()
            for _ in answer.each():
                partition, error, _, _ = answer.take("ihqq")
                answer.bytes(16 * len(answer.each()))
                records = answer.bytes(answer.take("i"))
                if error == 0 and records:
                    batches[topic, partition] = records
        return batches

    def produce(self, partitions, batch):
        """Appends the batch to each, acks=all; returns the base offsets of those that took it."""
        records = struct.pack(">i", len(batch)) + batch
        body = struct.pack(">hhi", -1, -1, 30_000) + by_topic(partitions, lambda at: struct.pack(">i", at[1]) + records)
        answer = self.ask(PRODUCE, 3, body)
        offsets = {}
        for _ in answer.each():
            topic = answer.text()
            for _ in answer.each():
                partition, error, offset, _ = answer.take("ihqq")
                if error == 0:
                    offsets[topic, partition] = offset
        return offsets

    def log_bytes(self, topic):
        """The size of the topic's logs by DescribeLogDirs."""
        answer = self.ask(DESCRIBE_LOG_DIRS, 1, struct.pack(">i", -1))
        answer.take("i")
        total = 0
        for _ in answer.each():
            check(answer.take("h"), "DescribeLogDirs")
            answer.text()
            for _ in answer.each():
                name = answer.text()
                for _ in answer.each():
                    _, size, _, _ = answer.take("iqqb")
                    total += size if name == topic else 0
        return total


@contextlib.contextmanager
def stalled_readers(port, count, offsets):
    """Connections that asked for 50 MiB of old records and take none of it but what their small windows hold."""
    readers = []
    try:
        for _ in range(count):
            reader = Wire(port, receive_bytes=4096)
            readers.append(reader)
            reader.send_fetch(offsets, 4 << 20)
        yield
    finally:
        for reader in readers:
            reader.socket.close()


def holds(batches, offset):
    """True when the record at `offset` lies in the first whole batch."""
    if len(batches) < 61:
        return False
    base, length, last_delta = struct.unpack_from(">qi11xi", batches)
    return len(batches) >= 12 + length and base <= offset <= base + last_delta


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def batch(records, key=b"key"):
    """A record batch of these values, which all have the same key."""
    body = b""
    for index, value in enumerate(records):
        record = b"\0" + varint(0) + varint(index) + varint(len(key)) + key + varint(len(value)) + value + varint(0)
        body += varint(len(record)) + record
    now_ms = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", 0, len(records) - 1, now_ms, now_ms, -1, -1, -1, len(records)) + body
    return struct.pack(">qiibI", 0, len(checked) + 9, -1, 2, crc32c(checked)) + checked

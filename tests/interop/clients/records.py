"""Produces or consumes a file of JSON lines {"h","k","t","v"} through one of three Python clients.

records.py confluent|kafka_python|aiokafka produce|consume BOOTSTRAP TOPIC FILE COUNT CODEC

Nothing here holds more than a client's own buffers, so that a million records need no more memory than a thousand.
"""
import asyncio
import json
import sys

SILENCE_MS = 30000


def read(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def data(text):
    return None if text is None else text.encode()


def text(value):
    return None if value is None else value.decode()


def headers(record):
    return [(k, data(v)) for k, v in record["h"]]


class Lines:
    """The file of what was read, byte for byte as the file that was written."""

    def __init__(self, path):
        self.out = open(path, "w", encoding="utf-8")
        self.count = 0

    def add(self, key, value, headers, timestamp):
        row = {"h": [[k, text(v)] for k, v in headers or []], "k": text(key), "t": timestamp, "v": text(value)}
        self.out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        self.count += 1


class Answers:
    """Counts acknowledgements, and keeps the first refusal."""

    def __init__(self):
        self.count = 0
        self.refusal = None

    def refused(self, error):
        self.refusal = self.refusal or error

    def acknowledged(self, *_):
        self.count += 1

    def check(self, count):
        assert not self.refusal, self.refusal
        assert self.count == count, f"only {self.count} of {count} acknowledged"


class Confluent:
    def produce(self, bootstrap, topic, records, codec, answers):
        from confluent_kafka import Producer
        producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": True, "linger.ms": 5})

        def delivered(error, _):
            answers.refused(error) if error else answers.acknowledged()

        for r in records:
            while True:
                try:
                    producer.produce(topic, data(r["v"]), data(r["k"]), partition=0, headers=headers(r), timestamp=r["t"], on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        producer.flush(60)

    def consume(self, bootstrap, topic, count, lines):
        from confluent_kafka import Consumer, TopicPartition
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "confluent", "auto.offset.reset": "earliest", "check.crcs": True})
        partition = TopicPartition(topic, 0, 0)
        consumer.assign([partition])
        while lines.count < count:
            messages = consumer.consume(1000, SILENCE_MS / 1000)
            assert messages, f"only {lines.count} of {count}"
            for m in messages:
                assert not m.error(), m.error()
                lines.add(m.key(), m.value(), m.headers(), m.timestamp()[1])
        # A record written twice at the end would be past what was read.
        offsets = consumer.get_watermark_offsets(partition, 30)
        assert offsets == (0, count), offsets
        consumer.close()


class KafkaPython:
    def produce(self, bootstrap, topic, records, codec, answers):
        from kafka import KafkaProducer
        codec = None if codec == "none" else codec
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=5)
        for r in records:
            future = producer.send(topic, data(r["v"]), data(r["k"]), headers(r), 0, r["t"])
            future.add_callback(answers.acknowledged)
            future.add_errback(answers.refused)
        producer.flush(60)
        producer.close()

    def consume(self, bootstrap, topic, count, lines):
        from kafka import KafkaConsumer, TopicPartition
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
                                 consumer_timeout_ms=SILENCE_MS, check_crcs=True)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        for m in consumer:
            lines.add(m.key, m.value, m.headers, m.timestamp)
            if lines.count == count:
                break
        consumer.close()


class AioKafka:
    def produce(self, bootstrap, topic, records, codec, answers):
        from aiokafka import AIOKafkaProducer

        def delivered(future):
            answers.refused(future.exception()) if future.exception() else answers.acknowledged()

        async def work():
            producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                                        acks="all", enable_idempotence=True, linger_ms=5)
            await producer.start()
            last = None
            for r in records:
                last = await producer.send(topic, data(r["v"]), data(r["k"]), 0, r["t"], headers(r))
                last.add_done_callback(delivered)
            await producer.flush()
            # Callbacks of one batch run in order: after the last record's own, all were called.
            await last
            await producer.stop()

        asyncio.run(work())

    def consume(self, bootstrap, topic, count, lines):
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def work():
            consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
            await consumer.start()
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            while lines.count < count:
                messages = await consumer.getmany(timeout_ms=SILENCE_MS)
                assert messages, f"only {lines.count} of {count}"
                for m in messages[TopicPartition(topic, 0)]:
                    lines.add(m.key, m.value, m.headers, m.timestamp)
            await consumer.stop()

        asyncio.run(work())


def main():
    library, what, bootstrap, topic, path, count, codec = sys.argv[1:8]
    client = {"confluent": Confluent, "kafka_python": KafkaPython, "aiokafka": AioKafka}[library]()
    if what == "produce":
        answers = Answers()
        client.produce(bootstrap, topic, read(path), codec, answers)
        answers.check(int(count))
    else:
        lines = Lines(path)
        client.consume(bootstrap, topic, int(count), lines)
        lines.out.close()
        assert lines.count == int(count), f"only {lines.count} of {count}"


main()

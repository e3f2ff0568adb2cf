"""Produces or consumes a file of JSON lines {"k","v","h","t"} through one of three Python clients.

records.py confluent|kafka_python|aiokafka produce|consume BOOTSTRAP TOPIC FILE COUNT CODEC
"""
import asyncio
import json
import sys


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def data(text):
    return None if text is None else text.encode()


def text(value):
    return None if value is None else value.decode()


def row(key, value, headers, timestamp):
    headers = [[k, text(v)] for k, v in headers or []]
    return json.dumps({"k": text(key), "v": text(value), "h": headers, "t": timestamp}, sort_keys=True)


class Confluent:
    def produce(self, bootstrap, topic, records, codec):
        from confluent_kafka import Producer
        producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": True, "linger.ms": 5})
        errors = []
        for r in records:
            headers = [(k, data(v)) for k, v in r["h"]]
            while True:
                try:
                    producer.produce(topic, data(r["v"]), data(r["k"]), partition=0, headers=headers, timestamp=r["t"],
                                     on_delivery=lambda e, m: errors.append(e) if e else None)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(60)
        assert not errors and not left, (errors[:3], left)

    def consume(self, bootstrap, topic, count):
        from confluent_kafka import Consumer, TopicPartition
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "confluent", "auto.offset.reset": "earliest", "check.crcs": True})
        consumer.assign([TopicPartition(topic, 0, 0)])
        rows = []
        while len(rows) < count:
            m = consumer.poll(30)
            assert m is not None, f"only {len(rows)} of {count}"
            assert not m.error(), m.error()
            rows.append(row(m.key(), m.value(), m.headers(), m.timestamp()[1]))
        consumer.close()
        return rows


class KafkaPython:
    def produce(self, bootstrap, topic, records, codec):
        from kafka import KafkaProducer
        codec = None if codec == "none" else codec
        producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=5)
        futures = [producer.send(topic, data(r["v"]), data(r["k"]), [(k, data(v)) for k, v in r["h"]], 0, r["t"]) for r in records]
        producer.flush(60)
        for future in futures:
            future.get(30)
        producer.close()

    def consume(self, bootstrap, topic, count):
        from kafka import KafkaConsumer, TopicPartition
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False,
                                 consumer_timeout_ms=30000, check_crcs=True)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        rows = []
        for m in consumer:
            rows.append(row(m.key, m.value, m.headers, m.timestamp))
            if len(rows) == count:
                break
        consumer.close()
        assert len(rows) == count, f"only {len(rows)} of {count}"
        return rows


class AioKafka:
    def produce(self, bootstrap, topic, records, codec):
        from aiokafka import AIOKafkaProducer

        async def work():
            producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                                        acks="all", enable_idempotence=True, linger_ms=5)
            await producer.start()
            futures = [await producer.send(topic, data(r["v"]), data(r["k"]), 0, r["t"], [(k, data(v)) for k, v in r["h"]]) for r in records]
            await producer.flush()
            for future in futures:
                await future
            await producer.stop()

        asyncio.run(work())

    def consume(self, bootstrap, topic, count):
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def work():
            consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
            await consumer.start()
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            rows = []
            while len(rows) < count:
                m = await asyncio.wait_for(consumer.getone(), 30)
                rows.append(row(m.key, m.value, m.headers, m.timestamp))
            await consumer.stop()
            return rows

        return asyncio.run(work())


def main():
    library, what, bootstrap, topic, path, count, codec = sys.argv[1:8]
    client = {"confluent": Confluent, "kafka_python": KafkaPython, "aiokafka": AioKafka}[library]()
    if what == "produce":
        client.produce(bootstrap, topic, read(path), codec)
    else:
        with open(path, "w") as out:
            out.write("\n".join(client.consume(bootstrap, topic, int(count))) + "\n")


main()

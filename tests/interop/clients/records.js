// Produces or consumes a file of JSON lines {"k","v","h","t"} through kafkajs.
//
// records.js kafkajs produce|consume BOOTSTRAP TOPIC FILE COUNT CODEC      (codecs: none, gzip)
const fs = require("fs");
const { Kafka, CompressionTypes, logLevel } = require("kafkajs");

async function produce(kafka, topic, file, codec) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const rows = fs.readFileSync(file, "utf8").trim().split("\n").map(JSON.parse);
  for (let at = 0; at < rows.length; at += 1000) {
    await producer.send({
      topic,
      acks: -1,
      compression: codec === "gzip" ? CompressionTypes.GZIP : CompressionTypes.None,
      messages: rows.slice(at, at + 1000).map((r) => {
        const headers = {};
        for (const [k, v] of r.h) (headers[k] ??= []).push(v);
        return { key: r.k, value: r.v, partition: 0, timestamp: String(r.t), headers };
      }),
    });
  }
  await producer.disconnect();
}

async function consume(kafka, topic, file, count) {
  const consumer = kafka.consumer({ groupId: "kafkajs-" + topic });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const rows = [];
  const text = (value) => (value === null || value === undefined ? null : value.toString());
  await new Promise((done, failed) => {
    setTimeout(() => failed(new Error(`only ${rows.length} of ${count}`)), 90000).unref();
    consumer.run({
      eachMessage: async ({ message: m }) => {
        const h = [];
        for (const [k, v] of Object.entries(m.headers ?? {})) for (const one of [v].flat()) h.push([k, text(one)]);
        rows.push(JSON.stringify({ h, k: text(m.key), t: Number(m.timestamp), v: text(m.value) }));
        if (rows.length === count) done();
      },
    });
  });
  await consumer.disconnect();
  fs.writeFileSync(file, rows.join("\n") + "\n");
}

const [, , , what, bootstrap, topic, file, count, codec] = process.argv;
const kafka = new Kafka({ clientId: "interop", brokers: [bootstrap], logLevel: logLevel.ERROR });
(what === "produce" ? produce(kafka, topic, file, codec) : consume(kafka, topic, file, Number(count))).catch((error) => {
  console.error(error);
  process.exit(1);
});

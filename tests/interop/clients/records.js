// Produces or consumes a file of JSON lines {"h","k","t","v"} through kafkajs, a thousand at a time.
//
// records.js kafkajs produce|consume BOOTSTRAP TOPIC FILE COUNT CODEC      (codecs: none, gzip)
const fs = require("fs");
const readline = require("readline");
const { Kafka, CompressionTypes, logLevel } = require("kafkajs");

const PIECE = 1000;
const SILENCE_MS = 30000;

function message(line) {
  const r = JSON.parse(line);
  const headers = {};
  for (const [k, v] of r.h) (headers[k] ??= []).push(v);
  return { key: r.k, value: r.v, partition: 0, timestamp: String(r.t), headers };
}

async function produce(kafka, topic, file, count, codec) {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const compression = codec === "gzip" ? CompressionTypes.GZIP : CompressionTypes.None;
  let sent = 0;
  let messages = [];
  const send = async () => {
    await producer.send({ topic, acks: -1, compression, messages });
    sent += messages.length;
    messages = [];
  };
  for await (const line of readline.createInterface({ input: fs.createReadStream(file), crlfDelay: Infinity })) {
    if (messages.push(message(line)) === PIECE) await send();
  }
  if (messages.length > 0) await send();
  await producer.disconnect();
  if (sent !== count) throw new Error(`only ${sent} of ${count} in ${file}`);
}

async function consume(kafka, topic, file, count) {
  const consumer = kafka.consumer({ groupId: "kafkajs-" + topic });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  const out = fs.openSync(file, "w");
  const text = (value) => (value === null || value === undefined ? null : value.toString());
  let rows = [];
  let read = 0;
  await new Promise((done, failed) => {
    const silence = setTimeout(() => failed(new Error(`only ${read} of ${count}`)), SILENCE_MS);
    const eachMessage = async ({ message: m }) => {
      const h = [];
      for (const [k, v] of Object.entries(m.headers ?? {})) for (const one of [v].flat()) h.push([k, text(one)]);
      read += 1;
      rows.push(JSON.stringify({ h, k: text(m.key), t: Number(m.timestamp), v: text(m.value) }) + "\n");
      if (rows.length < PIECE && read < count) return;
      fs.writeSync(out, rows.join(""));
      rows = [];
      silence.refresh();
      if (read >= count) {
        clearTimeout(silence);
        done();
      }
    };
    consumer.run({ eachMessage }).catch(failed);
  });
  await consumer.disconnect();
  fs.closeSync(out);
}

const [, , , what, bootstrap, topic, file, count, codec] = process.argv;
const kafka = new Kafka({ clientId: "interop", brokers: [bootstrap], logLevel: logLevel.ERROR });
const work = what === "produce" ? produce(kafka, topic, file, Number(count), codec) : consume(kafka, topic, file, Number(count));
work.catch((error) => {
  console.error(error);
  process.exit(1);
});

// Numbered: produces numbered records and proves by reading back that each is there once, in order.
//
// Numbered produce BOOTSTRAP TOPIC COUNT BYTES ACKNOWLEDGED   writes COUNT records, idempotent, acks=all,
//     keeps sending through restarts of the broker, and appends "partition offset number" of every
//     acknowledged record to the file ACKNOWLEDGED
// Numbered verify BOOTSTRAP TOPIC ACKNOWLEDGED               reads every partition to its end
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Numbered {
    static final int PRODUCER_MAGIC = 0x6e756d62;

    public static void main(String[] a) throws Exception {
        switch (a[0]) {
            case "produce" -> produce(a[1], a[2], Long.parseLong(a[3]), Integer.parseInt(a[4]), Path.of(a[5]));
            case "verify" -> verify(a[1], a[2], Path.of(a[3]));
            default -> throw new IllegalArgumentException(a[0]);
        }
    }

    // 4 bytes magic, 8 bytes number, then bytes that depend on the number.
    static byte[] value(long number, int bytes) {
        ByteBuffer buffer = ByteBuffer.allocate(Math.max(bytes, 12));
        buffer.putInt(PRODUCER_MAGIC).putLong(number);
        long state = number * 0x9e3779b97f4a7c15L + 1;
        while (buffer.hasRemaining()) {
            state ^= state << 13;
            state ^= state >>> 7;
            state ^= state << 17;
            buffer.put((byte) state);
        }
        return buffer.array();
    }

    static void produce(String bootstrap, String topic, long count, int bytes, Path acknowledged) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("acks", "all");
        p.put("enable.idempotence", "true");
        p.put("delivery.timeout.ms", "120000");
        p.put("request.timeout.ms", "20000");
        p.put("reconnect.backoff.max.ms", "200");
        p.put("linger.ms", "5");
        p.put("batch.size", "65536");
        AtomicLong failed = new AtomicLong();
        try (BufferedWriter out = Files.newBufferedWriter(acknowledged);
             KafkaProducer<byte[], byte[]> producer =
                 new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            int partitions = producer.partitionsFor(topic).size();
            for (long number = 0; number < count; number++) {
                final long n = number;
                int partition = (int) (number % partitions);
                producer.send(new ProducerRecord<>(topic, partition, null, value(number, bytes)), (metadata, error) -> {
                    if (error != null) {
                        failed.incrementAndGet();
                        System.err.println("record " + n + ": " + error);
                        return;
                    }
                    try {
                        out.write(metadata.partition() + " " + metadata.offset() + " " + n + "\n");
                    } catch (java.io.IOException e) {
                        throw new RuntimeException(e);
                    }
                });
            }
            producer.flush();
        }
        System.out.println("sent " + count + " failed " + failed.get());
        if (failed.get() > 0) System.exit(1);
    }

    static void verify(String bootstrap, String topic, Path acknowledged) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        p.put("max.poll.records", "5000");
        Map<Integer, Map<Long, Long>> found = new HashMap<>();
        long records = 0;
        long problems = 0;
        try (KafkaConsumer<byte[], byte[]> consumer =
                 new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(i -> partitions.add(new TopicPartition(topic, i.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Map<Integer, Long> last = new HashMap<>();
            Set<Long> seen = new HashSet<>();
            while (partitions.stream().anyMatch(x -> consumer.position(x) < ends.get(x))) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(5))) {
                    records++;
                    long number = ByteBuffer.wrap(r.value()).getLong(4);
                    if (!Arrays.equals(r.value(), value(number, r.value().length))) problems += say("wrong bytes", r, number);
                    if (!seen.add(number)) problems += say("twice", r, number);
                    Long before = last.put(r.partition(), number);
                    if (before != null && before >= number) problems += say("out of order", r, number);
                    found.computeIfAbsent(r.partition(), k -> new HashMap<>()).put(r.offset(), number);
                }
            }
        }
        long checked = 0;
        try (BufferedReader in = Files.newBufferedReader(acknowledged)) {
            for (String line; (line = in.readLine()) != null; ) {
                String[] f = line.split(" ");
                if (f.length < 3) continue;
                checked++;
                Long number = found.getOrDefault(Integer.parseInt(f[0]), Map.of()).get(Long.parseLong(f[1]));
                if (number == null || number != Long.parseLong(f[2])) {
                    problems++;
                    System.err.println("acknowledged and not there: " + line + ", found " + number);
                }
            }
        }
        System.out.println("read " + records + " acknowledged " + checked + " problems " + problems);
        if (problems > 0) System.exit(1);
    }

    static long say(String what, ConsumerRecord<byte[], byte[]> r, long number) {
        System.err.println(what + ": partition " + r.partition() + " offset " + r.offset() + " number " + number);
        return 1;
    }
}

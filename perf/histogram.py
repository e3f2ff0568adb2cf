"""HdrHistogram's V2 encoding, read: what corelane-load writes into its results.

The format is that of HdrHistogram's AbstractHistogram: a big-endian header, then counts from the lowest value on as
zigzag LEB128 numbers of at most 9 bytes, where a negative number stands for so many values that never occurred.
"""
import base64, collections, math, struct, zlib

COOKIE, COOKIE_DEFLATED = 0x1c849303, 0x1c849304
# Bits of the cookie that say how wide a word is; V2 has one width.
COOKIE_MASK = ~0xf0


class Histogram:
    """How often each value occurred, in the steps of the encoding: `counts` by the highest value of a step."""

    def __init__(self):
        self.counts = collections.Counter()

    @classmethod
    def decode(cls, text):
        data = base64.b64decode(text)
        cookie, size = struct.unpack_from(">ii", data)
        if cookie & COOKIE_MASK != COOKIE_DEFLATED:
            raise ValueError(f"not a deflated V2 histogram: {cookie:#x}")
        data = zlib.decompress(data[8:8 + size])
        cookie, size, offset, digits, lowest, _, _ = struct.unpack_from(">iiiiqqd", data)
        if cookie & COOKIE_MASK != COOKIE or offset:
            raise ValueError(f"not a V2 histogram: {cookie:#x}, offset {offset}")
        found, steps = cls(), Steps(digits, lowest)
        index = 0
        for number in numbers(data[40:40 + size]):
            if number < 0:
                index -= number
                continue
            if number:
                found.counts[steps.highest(index)] += number
            index += 1
        return found

    def __add__(self, other):
        total = Histogram()
        total.counts = self.counts + other.counts
        return total

    def count(self):
        return sum(self.counts.values())

    def max(self):
        return max(self.counts, default=0)

    def percentile(self, percent):
        """The value that so many percent of all don't exceed."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents):
        """Of ascending percents, in one pass."""
        total, seen, found = self.count(), 0, []
        values = iter(sorted(self.counts.items()))
        value = 0
        for percent in percents:
            # Not by multiplying 0.999: the double nearest to it is above.
            wanted = max(1, math.ceil(percent * total / 100 - 1e-9))
            while seen < wanted:
                pair = next(values, None)
                if pair is None:
                    break
                value, occurred = pair
                seen += occurred
            found.append(value)
        return found


class Steps:
    """Which values an index of the counts stands for: in each power of two the same number of them."""

    def __init__(self, digits, lowest):
        self.unit = int(math.log2(max(lowest, 1)))
        self.half_bits = math.ceil(math.log2(2 * 10 ** digits)) - 1

    def highest(self, index):
        power, step = (index >> self.half_bits) - 1, (index & (1 << self.half_bits) - 1) + (1 << self.half_bits)
        if power < 0:
            power, step = 0, index
        return (step + 1 << power + self.unit) - 1


def numbers(data):
    at = 0
    while at < len(data):
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            # The ninth byte has no bit that says whether there is another.
            number |= (byte if shift == 56 else byte & 0x7f) << shift
            shift += 7
            if shift > 56 or byte < 0x80:
                break
        yield (number >> 1) ^ -(number & 1)

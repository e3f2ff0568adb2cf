#!/usr/bin/env python3
"""What perf/report.py computes, against results that corelane-load wrote, and what it draws. `tests/report.rs` runs it."""
import base64, pathlib, struct, sys, tempfile, unittest, xml.etree.ElementTree as xml, zlib

# Shared modules leave no compiled copy in the source tree.
sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report, svg
from histogram import COOKIE, COOKIE_DEFLATED, Histogram, numbers

KEPT = pathlib.Path(__file__).resolve().parent / "reports" / "2026-11-21-side-by-side"
PERCENTILES = {"p50_us": 50, "p90_us": 90, "p99_us": 99, "p99_9_us": 99.9, "p99_99_us": 99.99}


def encoded(payload, digits=3):
    inner = struct.pack(">iiiiqqd", COOKIE | 0x10, len(payload), 0, digits, 1, 60_000_000, 1.0) + payload
    deflated = zlib.compress(inner)
    return base64.b64encode(struct.pack(">ii", COOKIE_DEFLATED | 0x10, len(deflated)) + deflated)


class Histograms(unittest.TestCase):
    def test_kept_results_give_the_percentiles_that_the_load_computed_itself(self):
        seen = 0
        for run in report.runs_of(KEPT):
            latency = run.get("latency") or {}
            if not latency.get("count"):
                continue
            seen += 1
            found = Histogram.decode(latency["histogram"])
            self.assertEqual((found.count(), found.max()), (latency["count"], latency["max_us"]))
            self.assertEqual(found.percentiles(list(PERCENTILES.values())), [latency[name] for name in PERCENTILES])
        self.assertGreaterEqual(seen, 18)

    def test_small_ones_are_read_by_hand(self):
        # Zigzag: 4 is two, 3 is a run of two that never occurred, 2 is one: 0 twice, 3 once.
        found = Histogram.decode(encoded(bytes([4, 3, 2])))
        self.assertEqual(dict(found.counts), {0: 2, 3: 1})
        self.assertEqual([found.percentile(percent) for percent in (0, 66, 67, 100)], [0, 0, 3, 3])

    def test_numbers_have_at_most_nine_bytes(self):
        self.assertEqual(list(numbers(b"\xff" * 9 + b"\x02")), [-(1 << 63), 1])

    def test_two_together_are_as_one(self):
        both = Histogram.decode(encoded(bytes([0, 2]))) + Histogram.decode(encoded(bytes([0, 4, 2])))
        self.assertEqual(dict(both.counts), {1: 3, 2: 1})

    def test_another_encoding_is_refused(self):
        with self.assertRaises(ValueError):
            Histogram.decode(base64.b64encode(struct.pack(">ii", 0x1c849301, 0)))


class Plots(unittest.TestCase):
    def test_points_stand_where_their_values_are(self):
        axis = svg.Axis("x", [1, 1000], (0, 300), is_log=True)
        self.assertEqual([round(axis.at(value)) for value in (1, 10, 100, 1000)], [0, 100, 200, 300])
        axis = svg.Axis("x", [3, 9], (300, 0))
        self.assertEqual((axis.low, axis.high, axis.at(0), axis.at(axis.high)), (0, 10, 300, 0))

    def test_every_series_has_a_colour_or_marker_of_its_own(self):
        names = ["kafka", "kafka-flush", "corelane-relaxed", "corelane-durable", "floor-relaxed", "floor-durable", "glommio-relaxed", "glommio-durable", "rival"]
        self.assertEqual(len(set(svg.styles_of(names).values())), len(names))


class Reports(unittest.TestCase):
    def test_a_kept_folder_becomes_a_page_whose_plots_are_there_and_well_formed(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder)
            page = report.report(report.Results(KEPT), "what-it-costs", out).read_text()
            plots = sorted(path.name for path in out.glob("*.svg"))
            self.assertIn("2026-11-21-what-it-costs-P4-percentiles.svg", plots)
            for plot in plots:
                self.assertIn(f"({plot})", page)
                text = (out / plot).read_text()
                self.assertTrue(xml.fromstring(text).tag.endswith("svg"))
                self.assertNotIn("nan", text)
            for said in ("6.18", "Xeon", "corelane-durable", "ext4"):
                self.assertIn(said, page)


if __name__ == "__main__":
    unittest.main()

"""Plots as plain SVG: lines and bars on axes with units, a legend, colours that the colour-blind can tell apart.

A series is told apart by its marker and dashes as well. Colours are those of Okabe and Ito.
"""
import html, math

WIDTH, HEIGHT = 860, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 200, 44, 60
STYLES = {
    "kafka": ("#d55e00", "", "circle"), "kafka-flush": ("#e69f00", "6 3", "circle"),
    "corelane": ("#0072b2", "", "square"), "corelane-relaxed": ("#56b4e9", "", "triangle"), "corelane-durable": ("#0072b2", "", "square"),
}
MORE_STYLES = [("#009e73", "2 3", "diamond"), ("#cc79a7", "8 3 2 3", "diamond"), ("#000000", "2 3", "cross"), ("#777777", "8 3", "cross"), ("#8c564b", "4 2", "triangle")]


def styles_of(names):
    """A style for each, the same in every plot for those that are always there."""
    others = iter(MORE_STYLES * 4)
    return {name: STYLES.get(name) or next(others) for name in names}


class Axis:
    """Values along `pixels`, from its first to its last one. `ticks`: pairs of value and text instead of round numbers."""

    def __init__(self, label, values, pixels, is_log=False, ticks=None):
        self.label, self.pixels, self.is_log = label, pixels, is_log
        values = [value for value in values if value > 0] if is_log else list(values)
        low, high = (min(values), max(values)) if values else (1, 10)
        if is_log:
            # No plot is flatter than one power of ten.
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
            high = max(high, low * 10)
            self.ticks = [(low * 10 ** power, number(low * 10 ** power)) for power in range(round(math.log10(high / low)) + 1)]
        else:
            step = nice_step((high - min(low, 0)) or 1)
            low, high = math.floor(min(low, 0) / step) * step, math.ceil((high or 1) / step) * step
            self.ticks = [(low + index * step, number(low + index * step)) for index in range(round((high - low) / step) + 1)]
        self.low, self.high = low, high
        if ticks:
            self.ticks = ticks
            self.low, self.high = ticks[0][0], ticks[-1][0]

    def at(self, value):
        scaled = math.log10 if self.is_log else lambda same: same
        low, high = scaled(self.low), scaled(self.high)
        share = (scaled(max(value, self.low) if self.is_log else value) - low) / (high - low)
        return self.pixels[0] + min(max(share, 0), 1) * (self.pixels[1] - self.pixels[0])


def nice_step(span):
    power = 10 ** math.floor(math.log10(span / 5))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= 6)


def number(value):
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.0e}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(words)}</text>'


def line(x1, y1, x2, y2, colour="#ddd"):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def marker(shape, x, y, colour):
    points = {"square": [(-4, -4), (4, -4), (4, 4), (-4, 4)], "triangle": [(0, -5), (5, 4), (-5, 4)], "diamond": [(0, -5), (5, 0), (0, 5), (-5, 0)]}
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    if shape == "cross":
        return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{colour}" stroke-width="2" fill="none"/>'
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points[shape])}" fill="{colour}"/>'


def frame(title, x, y):
    """Title, grid, ticks and labels."""
    left, right, bottom, top = x.pixels[0], x.pixels[1], y.pixels[0], y.pixels[1]
    parts = [text((left + right) / 2, 24, title, more='font-size="15" font-weight="bold"')]
    for value, words in x.ticks:
        parts += [line(x.at(value), bottom, x.at(value), top), text(x.at(value), bottom + 18, words)]
    for value, words in y.ticks:
        parts += [line(left, y.at(value), right, y.at(value)), text(left - 8, y.at(value) + 4, words, "end")]
    parts += [line(left, bottom, right, bottom, "#333"), line(left, bottom, left, top, "#333"), text((left + right) / 2, bottom + 42, x.label)]
    middle = (top + bottom) / 2
    return [*parts, text(20, middle, y.label, more=f'transform="rotate(-90 20 {middle:.1f})"')]


def legend(styles, with_lines=True):
    parts = []
    for index, (name, (colour, dashes, shape)) in enumerate(styles.items()):
        x, y = WIDTH - RIGHT + 20, TOP + 10 + 22 * index
        if with_lines:
            parts += [f'<path d="M{x} {y}h34" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>', marker(shape, x + 17, y, colour)]
        else:
            parts.append(f'<rect x="{x + 8}" y="{y - 7}" width="18" height="14" fill="{colour}"/>')
        parts.append(text(x + 42, y + 4, name, "start"))
    return parts


def document(parts):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
                      f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>"]) + "\n"


def x_pixels():
    return LEFT, WIDTH - RIGHT


def y_pixels():
    return HEIGHT - BOTTOM, TOP


def lines(title, series, x_label, y_label, x_log=False, y_log=False, x_ticks=None, with_markers=True):
    """`series`: points by name."""
    points = [point for own in series.values() for point in own]
    x = Axis(x_label, [point[0] for point in points], x_pixels(), x_log, x_ticks)
    y = Axis(y_label, [point[1] for point in points], y_pixels(), y_log)
    styles = styles_of(series)
    parts = frame(title, x, y)
    for name, own in series.items():
        colour, dashes, shape = styles[name]
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in own)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>')
        # A few are enough to tell a line by; of few points each has one.
        step = 1 if with_markers else max(1, len(own) // 8)
        parts += [marker(shape, x.at(a), y.at(b), colour) for a, b in own[::step]]
    return document([*parts, *legend(styles)])


def bars(title, groups, y_label, y_log=False):
    """`groups`: of each name, by series, low, middle and high; the bar is the middle, the line on it goes from low to high."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    values = [value for group in groups.values() for spread in group.values() for value in spread]
    x = Axis("row", [0, len(groups)], x_pixels(), ticks=[(0, ""), (len(groups), "")])
    y = Axis(y_label, values, y_pixels(), y_log)
    styles = styles_of(names)
    parts, bottom = frame(title, x, y), y.pixels[0]
    width = (x.at(1) - x.at(0)) * 0.8 / max(1, len(names))
    for index, (group, spreads) in enumerate(groups.items()):
        # Long names of neighbours don't meet on one line.
        parts.append(text(x.at(index + 0.5), bottom + (15 if index % 2 == 0 else 27), group, more='font-size="10"'))
        for name, (low, middle, high) in spreads.items():
            left = x.at(index + 0.1) + names.index(name) * width
            centre = left + width / 2
            parts += [f'<rect x="{left:.1f}" y="{y.at(middle):.1f}" width="{width * 0.9:.1f}" height="{bottom - y.at(middle):.1f}" fill="{styles[name][0]}"/>',
                      line(centre, y.at(low), centre, y.at(high), "#333"), text(centre + 4, y.at(high) - 4, number(float(f"{middle:.3g}")), "start", f'font-size="10" transform="rotate(-90 {centre + 4:.1f} {y.at(high) - 4:.1f})"')]
    return document([*parts, *legend(styles, with_lines=False)])

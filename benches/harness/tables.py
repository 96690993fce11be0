"""Tables in Markdown of the results of benches/incremental."""

import re

FULL, CHANGED = "volio", "volio, only what changed"
BEGIN, END = "<!-- benches/incremental: begin -->", "<!-- benches/incremental: end -->"
COMMANDS = {"pack": "pack --incremental", "unpack": "unpack --sync"}


def report(results):
    """Returns the lines of all tables."""
    lines = []
    for number, (date, runs, machine) in enumerate(sorted({origin(result) for result in results})):
        changes = [result for result in results if origin(result) == (date, runs, machine)]
        sets = ", ".join(sorted({result["set"] for result in changes}))
        lines += [f"{'Measured' if number == 0 else 'And'} on {date}, medians of {runs} interleaved rounds ({sets}): {machine}", ""]
    for direction in ("pack", "unpack"):
        of = [result for result in results if result["direction"] == direction and CHANGED in result["medians"]]
        if of:
            lines += [f"#### {direction}", "", *seconds(of, direction), "", *transfers(of, direction), ""]
    return lines + ["#### Beside what was wanted", "", *targets(results)]


def origin(result):
    """Returns the date, the rounds and the machine. The load differs between the changes of one run and is left out."""
    return result["date"], result["runs"], re.sub(r"; load before: \d+\.\d+", "", result["machine"])


def header(columns):
    return ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]


def peers(results):
    """Returns the names of the other tools in the order in which they ran."""
    return list(dict.fromkeys(tool for result in results for tool in result["medians"] if tool not in (FULL, CHANGED)))


def seconds(results, direction):
    """Returns the wall and CPU seconds of each tool."""
    others = peers(results)
    lines = header(["wall s (CPU s)", direction, COMMANDS[direction], "of full", *others])
    for result in results:
        medians, rounds = result["medians"], result["rounds"]
        cells = [result["title"], time_of(medians, FULL), time_of(medians, CHANGED), share_of_time(medians)]
        for tool in others:
            fewer = tool in rounds and rounds[tool] != result["runs"]
            cells.append(time_of(medians, tool) + (f", rounds: {rounds[tool]}" if fewer else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def transfers(results, direction):
    """Returns the megabytes that each tool read and transferred, and the memory of volio."""
    others = peers(results)
    lines = header([f"MB (10^6 bytes) of {direction}", "changed, zstd -3", "tables of contents", "full: read", "wire",
                    f"{COMMANDS[direction]}: read", "wire", "memory MiB", *(f"{tool}: read, wire" for tool in others)])
    for result in results:
        medians, changed = result["medians"], result["changed"]
        full, ours = medians.get(FULL, {}), medians[CHANGED]
        cells = [result["title"], megabytes(changed["compressed"]), megabytes(changed.get("contents")),
                 megabytes(full.get("read")), megabytes(full.get("wire")), megabytes(ours["read"]), megabytes(ours["wire"]),
                 f"{ours['memory'] / (1 << 20):.0f}"]
        for tool in others:
            cost = medians.get(tool, {})
            cells.append(f"{megabytes(cost.get('read'))}, {megabytes(cost.get('wire'))}" if cost else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def time_of(medians, tool):
    return f"{medians[tool]['wall']:.3f} ({medians[tool]['cpu']:.3f})" if tool in medians else ""


def share_of_time(medians):
    if FULL not in medians:
        return ""
    share = lambda field: f"{100 * medians[CHANGED][field] / medians[FULL][field]:.1f} %"
    return f"{share('wall')} ({share('cpu')})"


def megabytes(size):
    return "" if size is None else f"{size / 1e6:.3f}"


def targets(results):
    """Returns what was wanted of volio beside what was measured."""
    lines = header(["", "wanted", "wall", "CPU"])
    for result in results:
        lines += [f"| {result['direction']}, {result['title']}: {what} | {wanted} | {wall} | {cpu} |"
                  for what, wanted, wall, cpu in compare(result)]
    return lines


def compare(result):
    """Yields a measure, what was wanted, and what wall and CPU seconds, or bytes, gave."""
    medians, changed, change = result["medians"], result["changed"], result["change"]
    if CHANGED not in medians:
        return
    ours = medians[CHANGED]
    most = {"0": 2, "1": 10}.get(change)
    if most and FULL in medians:
        shares = [f"{100 * ours[field] / medians[FULL][field]:.1f} %" for field in ("wall", "cpu")]
        yield f"of the time of {result['direction']} in full", f"under {most} %", *shares
    if change == "1":
        sizes = changed["compressed"] + changed.get("contents", 0)
        yield "of the changed compressed bytes and tables of contents", "under 1.2", f"{ours['wire'] / sizes:.2f}", ""
    if change == "blocks" and result["direction"] == "unpack":
        yield "of the file fetched", "under 5 %", f"{100 * ours['wire'] / changed['bytes']:.1f} %", ""
    if change in ("0", "1", "blocks"):
        others = {tool: cost for tool, cost in medians.items() if tool in ("restic", "umoci + skopeo")}
        for tool, cost in others.items():
            times = [f"{cost[field] / ours[field]:.1f}" for field in ("wall", "cpu")]
            yield f"times as fast as {tool}", "10" if result["direction"] == "pack" else "", *times


def replace(document, text):
    """Writes the tables between the markers of a page."""
    page = document.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")

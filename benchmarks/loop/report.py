# SPDX-License-Identifier: MIT
"""From samples to medians, ratios and Markdown."""
import statistics

LOWER_IS_BETTER = {"us", "ms", "MB", "KiB", "B", "insn", "calls"}
DISTURBED = 0.2  # other processes used more than this much of one core


def summarise(samples):
    """One loop's samples of one case (or its error) as the entry of the JSON file."""
    if isinstance(samples, str):
        return {"error": samples}
    clean = [s for s in samples if s["other"] < DISTURBED] or samples
    out = {"value": statistics.median(s["value"] for s in clean), "unit": clean[0]["unit"],
           "runs": [s["value"] for s in samples], "clean": len(clean), "other": max(s["other"] for s in clean)}
    for key in ("cpu_us", "p50_us", "p99_us", "server_cpu", "client_cpu"):
        if key in clean[0]:
            out[key] = statistics.median(s[key] for s in clean)
    return out


def ratio(entry, reference, key="value"):
    """Above 1: better than the reference. None where one of the two is missing."""
    if not entry or not reference or not entry.get(key) or not reference.get(key):
        return None
    if key == "cpu_us" or entry["unit"] in LOWER_IS_BETTER:
        return reference[key] / entry[key]
    return entry[key] / reference[key]


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def cell(entry, reference):
    if not entry or "error" in entry:
        return "n/a" if entry else ""
    text = number(entry["value"])
    if rate := ratio(entry, reference):
        text += f" **{rate:.2f}**"
    if cpu := ratio(entry, reference, "cpu_us"):
        text += f" cpu {cpu:.2f}"
    return text + ("~" if entry["other"] >= DISTURBED else "")


def line(name, entries, reference):
    """One case for the terminal."""
    words = [f"{name:24}"]
    for loop, entry in entries.items():
        words.append(f"{loop}=" + cell(entry, reference).replace("**", "").replace(" ", "/"))
    return " ".join(words)


def table(results, names, reference):
    loops = [x for x in results["loops"] if any(x in results["cases"][n] for n in names)]
    yield "| case | unit | " + " | ".join(loops) + " |"
    yield "|---" * (len(loops) + 2) + "|"
    for name in names:
        case = results["cases"][name]
        unit = next((case[x]["unit"] for x in loops if "unit" in case.get(x, {})), "")
        yield f"| {name} | {unit} | " + " | ".join(cell(case.get(x), case.get(reference)) for x in loops) + " |"
    yield ""


def means(results, groups, reference):
    yield f"## Geometric mean of the ratio to {reference}, by group (of the cases that both ran)"
    yield ""
    yield "| group | " + " | ".join(results["loops"]) + " |"
    yield "|---" * (len(results["loops"]) + 1) + "|"
    for group, names in groups.items():
        row = []
        for loop in results["loops"]:
            cases = [results["cases"][n] for n in names]
            found = [x for c in cases if (x := ratio(c.get(loop), c.get(reference)))]
            row.append(f"{statistics.geometric_mean(found):.2f} ({len(found)})" if found else "")
        yield f"| {group} | " + " | ".join(row) + " |"


def markdown(results, reference):
    groups = {}
    for name in results["cases"]:
        groups.setdefault(name.split("/")[0], []).append(name)
    lines = ["# Event loops side by side", "",
             f"Machine: {results['machine']}.", "",
             "Versions: " + "; ".join(f"{x}: {v or '-'}" for x, v in results["loops"].items()) + ".", "",
             f"Each cell: median, then the ratio to {reference} (above 1 is better), then, where the CPU time per "
             "operation is known, the ratio of that (`cpu`). n/a: refused or failed, the JSON file says why. "
             "`~`: other processes were busy during every sample.", ""]
    for names in groups.values():
        lines += table(results, names, reference)
    lines += means(results, groups, reference)
    return "\n".join(lines) + "\n"

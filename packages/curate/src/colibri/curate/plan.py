"""What `curate run` would do, without doing it."""

from collections import Counter

from colibri.core.errors import UserError
from colibri.curate.config import RunConfig
from colibri.curate.ingest import find_sources


def plan(config: RunConfig) -> str:
    """A page to read: sources, choices, rows by source, and what happens to them."""
    lines = [f"out        {config.out}", f"captioner  {config.captioner} (embedded)"]
    if config.data_root is None:
        lines.append("data       the embedded sample, written to OUT/sample")
    elif not config.data_root.is_dir():
        raise UserError(f"--data-root {config.data_root} is not a folder")
    else:
        for source, layout, settings in find_sources(config, config.data_root):
            problems: Counter[str] = Counter()
            rows = 0
            for clip in source.clips(layout, settings):
                rows += 1
                if clip.problem:
                    problems[clip.problem[0]] += 1
            lines.append(f"source     {source.name}: {rows:,} rows in {layout.root}")
            lines += [f"           {fact}" for fact in layout.facts]
            lines += [f"           {count:,} {reason}" for reason, count in problems.most_common()]
    height, width = config.frame.size
    lines += [
        f"frames     {config.frame.reader}, {config.frame.geometry} to {width}x{height}, "
        f"at least {config.frame.min_frames} frames",
        f"keep       {'all that pass' if config.keep is None else f'{config.keep:,}'}, "
        f"score at least {config.min_score}",
    ]
    return "\n".join(lines)

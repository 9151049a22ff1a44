"""`--dry-run`: what a recipe would train, said without training, downloading or writing anything."""

from semiseg.train.build import build_learner, build_model
from semiseg.train.build_sources import build_sources
from semiseg.train.recipe import Recipe
from semiseg.train.rehearse import rehearse
from semiseg.train.run_folder import classes_of


def preview(recipe: Recipe) -> str:
    """Sources with their sizes and epochs, parameters, and what a few steps took, as lines of text."""
    sources = build_sources(recipe, fill=(0, 0, 0))
    model = build_model(recipe.model, classes_of(recipe), download=False)
    learner = build_learner(recipe, model, sources.taxonomies)
    lines = [f"{recipe.name}: {recipe.steps} steps into {recipe.runs}/{recipe.name}"]
    turns = len(sources.streams) if recipe.data.domains_per_step == "one" else 1
    for domain, streams in sources.streams.items():
        for role, stream in streams.items():
            epochs = recipe.steps / turns * stream.batch_size * (2 if stream.pairs else 1) / len(stream.plan)
            covered = ""
            if role == "weak":
                base = sum(len(each.base) for each in getattr(stream.shards, "sets", [stream.shards]))
                covered = f" with pseudo-labels (of {base} in the split)"
            lines.append(
                f"  {domain} {role}: {len(stream.plan)} of {len(stream.shards)} images{covered}, "
                f"{stream.batch_size}{' pairs' if stream.pairs else ''} a step, {epochs:.1f} epochs"
            )
        if domain in sources.validation:
            each = sources.validation[domain]
            lines.append(f"  {domain} val: {len(each.shards if each.subset is None else each.subset)} images")
        kinds = ", ".join(type(each).__name__ for each in learner.objectives[domain])  # type: ignore[arg-type]
        lines.append(f"  {domain} objectives: {kinds}")
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in (
        ("encoder", model.encoder), ("context", model.context), ("decoders", model.decoders), ("objectives", learner.objectives)
    )}  # fmt: skip
    lines.append("  parameters: " + ", ".join(f"{name} {number:,}" for name, number in count.items()))
    lines += rehearse(recipe, model, sources, learner).tell()
    return "\n".join(lines)

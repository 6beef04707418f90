"""prepare(): from a resolved config to the parts of a run, in four steps: build, check, load, place. Writes nothing."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from mtlrun.config.bounds import Seed
from mtlrun.config.instantiate import build, construct
from mtlrun.config.schema import GROUPS
from mtlrun.config.seeds import explain_several_seeds
from mtlrun.config.settings import Runtime, Settings
from mtlrun.config.values import find_problems
from mtlrun.datasets import SPLITS, Loader, MultiTaskDataset
from mtlrun.datasets.base import Split
from mtlrun.errors import ConfigError
from mtlrun.models import MultiTaskModel, SharedRepresentationModel, SourceStatistics
from mtlrun.records.folder import check_writable
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Match, SplitSummary
from mtlrun.records.stamps import Stamp, take_stamps
from mtlrun.setup.compatibility import (
    check_affinity,
    check_per_source,
    check_protocol,
    check_tasks,
    check_weighting,
    find_last_layer,
    try_batch,
)
from mtlrun.setup.component_check import check_config
from mtlrun.setup.computing import check_computation, describe_computation, set_computation, try_computation
from mtlrun.setup.cuda_graph import check_cuda_graph
from mtlrun.setup.data_paths import find_data_paths
from mtlrun.setup.doubts import doubt_plan, doubt_splits, doubt_targets, doubt_warmup
from mtlrun.setup.environment import (
    choose_device,
    keep_solvers_on_one_thread,
    set_seed,
    tune_convolutions,
    use_device,
    use_tf32,
    use_threads,
)
from mtlrun.setup.length import choose_length
from mtlrun.setup.loaders import fit_tasks, has_source_statistics, make_loaders
from mtlrun.setup.memory import within_memory
from mtlrun.setup.memory_keys import check_memory_keys, use_memory_keys
from mtlrun.setup.model_building import build_model
from mtlrun.setup.model_size import count_macs_of_batch
from mtlrun.setup.optimizer_groups import (
    check_optimizer,
    check_room_for_training,
    check_task_rates,
    make_optimizer,
)
from mtlrun.setup.problems import Problems
from mtlrun.setup.selection_rules import check_declared_values, check_monitor, make_rules, make_skills
from mtlrun.setup.small_maps import describe_small_maps
from mtlrun.setup.split_summary import count_labels, describe_repeated, keys_of_split, summarize
from mtlrun.setup.task_building import Sizes, build_tasks, check_task_names, learned_from_data
from mtlrun.setup.undefined import Undefined, find_undefined, stand_in
from mtlrun.setup.warm_start import find_first_stage
from mtlrun.tasks import Task
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.optim import Schedule
from mtlrun.training.parts import Parts
from mtlrun.weightings import JacobianWeighting, LossWeighting, Weighting
from mtlrun.weightings.base import TaskGradientWeighting
from mtlrun.weightings.capabilities import (
    LooksAhead,
    RotatesRepresentation,
    UsesLabelFractions,
    UsesTaskKinds,
    UsesTaskNames,
)

logger = logging.getLogger(__name__)

_SAMPLES = ("dataset: its samples", "use fewer or smaller ones, or dataset.cache=none where there is that")


@dataclass(frozen=True)
class Components:
    """The objects that a config describes, on the CPU, after all checks that need no data."""

    config: Mapping[str, Any]
    seed: int
    runtime: Runtime
    settings: Settings
    device: torch.device
    tasks: dict[str, Task]
    task_sizes: Sizes
    dataset: MultiTaskDataset
    model: MultiTaskModel
    match: Match | None
    weighting: Weighting
    schedule: Schedule


@dataclass(frozen=True)
class Data:
    """Loaders, what the run sees of each split and cannot see, stamps of its files, and the MACs of a sample."""

    loaders: dict[str, Loader]
    splits: dict[str, SplitSummary]
    undefined: Undefined
    stamps: dict[str, Stamp]
    macs: int


def prepare(config: Mapping[str, Any]) -> Parts:
    """Build and check everything that a run needs; nothing is written.

    Args:
        config: as `mtlrun.config.compose.resolve` returns it.

    Raises:
        ConfigError: with all problems that can be found independently of each other.
        DataError: the data cannot be used.
        OutOfMemoryError: model and data do not fit into the memory that is free.
    """
    with within_memory("the run: its model and data", "use a smaller backbone, or fewer or smaller samples"):
        problems = Problems(check_config(config))
        built = build_components(config, problems)
        check_components(built, problems)
        problems.drop_inherited(config)
        problems.raise_if_any()
        components = Components(**built)
        use_device(components.device)
        parts = place(components, load_data(components))
        check_cuda_graph(parts)
    return parts


# ------------------------------------------------------------------------------------------------------- 1. build


def build_components(config: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """Return the arguments of `Components`; None for what cannot be built, whose problems are added."""
    nodes = {group: config[group] for group in (*GROUPS, "tasks") if config.get(group) is not None}
    seed = 0 if find_problems(config.get("seed"), Seed, "seed") else config["seed"]
    runtime = problems.attempt(build_plain, Runtime, nodes.get("runtime"), "runtime")
    settings = problems.attempt(build_plain, Settings, nodes.get("trainer"), "trainer")
    device = _use_runtime(runtime, problems) or torch.device("cpu")
    if runtime is not None and "seed" in config:
        problems.attempt(check_writable, run_folder(config))
    names = check_task_names(nodes.get("tasks", {}))
    if names:  # a dataset looks for a column of the task's name, and stops at the first one that it does not have
        problems += names
        problems.raise_if_any()
    of_dataset = Problems()
    dataset = of_dataset.attempt(_build_dataset, nodes["dataset"]) if "dataset" in nodes else None
    tasks, task_sizes, of_tasks = build_tasks(nodes.get("tasks", {}), dataset, str(config["names"]["dataset"]))
    problems += [*of_tasks, *of_dataset]
    weighting, schedule = (
        problems.attempt(build, nodes[group], group, base) if group in nodes else None
        for group, base in (("weighting", Weighting), ("scheduler", Schedule))
    )
    if "optimizer" in nodes:
        problems.attempt(check_optimizer, nodes["optimizer"], device)
    if (stage := find_first_stage(config)) is not None:
        nodes["model"] = nodes["model"] | {"init_from": str(stage)}
    # The initial parameters of the model depend on the seed alone, not on the dataset or the weighting.
    set_seed(seed, deterministic=settings is not None and settings.deterministic)
    use_tf32(settings is not None and settings.precision == "tf32")
    model, match = None, None
    if dataset is not None:
        problems += check_tasks(tasks, dataset, str(config["names"]["dataset"]))
        built = problems.attempt(build_model, nodes, config.get("match_parameters"), tasks, dataset, problems)
        model, match = (None, None) if built is None else built
    if model is not None and "optimizer" in nodes:
        problems.attempt(check_room_for_training, nodes["optimizer"], model, device)
    return {
        "config": config,
        "seed": seed,
        "runtime": runtime,
        "settings": settings,
        "device": device,
        "tasks": tasks,
        "task_sizes": task_sizes,
        "dataset": dataset,
        "model": model,
        "match": match,
        "weighting": weighting,
        "schedule": schedule,
    }


def _build_dataset(node: Mapping[str, Any]) -> MultiTaskDataset:
    with within_memory(*_SAMPLES):
        dataset: MultiTaskDataset = build(node, "dataset", MultiTaskDataset)
    return dataset


def build_plain(target: type, node: Mapping[str, Any] | None, key: str) -> Any:
    """Build a group that has only one class, which its YAML therefore does not name."""
    return None if node is None else construct(target, node, key)


def _use_runtime(runtime: Runtime | None, problems: Problems) -> torch.device | None:
    """Set the numbers of threads, and return the device; None if there is none that can be used."""
    keep_solvers_on_one_thread()
    if runtime is None:
        return None
    if runtime.predictions == "parquet" and find_spec("pyarrow") is None:
        problems.append(
            "runtime.predictions=parquet needs pyarrow, which is not installed; pip install pyarrow, or use csv or none"
        )
    cpus = os.cpu_count() or 1
    if runtime.num_workers > max(32, 16 * cpus):
        problems.append(
            f"runtime.num_workers must be <= {max(32, 16 * cpus)} on this machine, which has {cpus} CPUs, found "
            f"{runtime.num_workers}; one worker for each CPU is enough"
        )
    device: torch.device | None = problems.attempt(choose_device, runtime.device)
    problems.attempt(use_threads, runtime.num_threads or 1)
    return device


# ------------------------------------------------------------------------------------------------------- 2. check


def check_components(built: Mapping[str, Any], problems: Problems) -> None:
    """Add the problems of the components together, and give the weighting its number of tasks.

    Args:
        built: as `build_components` returns it.
        problems: those of `build_components`.
    """
    tasks, dataset, settings, weighting = (built[name] for name in ("tasks", "dataset", "settings", "weighting"))
    if weighting is not None:
        problems += check_weighting(weighting, built["model"], tasks, built["config"])
        if len(tasks) == len(built["config"].get("tasks") or {}):  # else some could not be built
            problems.attempt(_set_up, weighting, tasks, built["seed"])
    if built["model"] is not None:
        problems.attempt(check_task_rates, built["config"].get("optimizer") or {}, built["model"], tasks)
    if settings is not None and settings.vectorized_seeds is not None:
        problems.append(explain_several_seeds(settings.vectorized_seeds))
    if settings is not None and tasks:
        problems.attempt(check_monitor, settings.monitor, tasks)
        problems += check_affinity(settings, built["model"], tasks, built["config"])
    if None not in (settings, weighting, built["model"], dataset):
        problems += check_memory_keys(settings, weighting, built["model"], dataset, built["config"])
    problems.attempt(check_declared_values, tasks)
    if settings is not None:
        backbone = str(built["config"]["names"]["backbone"])
        problems += check_computation(settings, built["model"], built["device"], backbone)
    if settings is not None and dataset is not None:
        problems += check_protocol(dataset, settings)


def _set_up(weighting: Weighting, tasks: Mapping[str, Task], seed: int) -> None:
    try:
        weighting.setup(len(tasks), seed)
        for naming in weighting.capable_of(UsesTaskNames):
            naming.set_task_names(list(tasks))
    except ValueError as error:
        raise ConfigError(f"weighting.{error}") from error
    for method in weighting.capable_of(UsesTaskKinds):
        method.set_categorical([task.categorical for task in tasks.values()])


# -------------------------------------------------------------------------------------------------------- 3. load


def load_data(components: Components) -> Data:
    """Load the data, fit the tasks to it, and check model and weighting with a first batch."""
    dataset, tasks, model, weighting = components.dataset, components.tasks, components.model, components.weighting
    settings, runtime = components.settings, components.runtime
    with within_memory(*_SAMPLES):
        loaders = make_loaders(
            dataset,
            tasks,
            settings,
            runtime,
            components.device,
            components.seed,
            look_ahead=bool(weighting.capable_of(LooksAhead)),
            independent=model.independent_tasks,
        )
    train = loaders["train"]
    if settings.micro_batches > train.batch_size:
        raise ConfigError(
            f"trainer.micro_batches must be <= trainer.batch_size ({train.batch_size}), the samples that it divides, "
            f"found {settings.micro_batches}"
        )
    undefined = find_undefined(dataset, tasks, loaders)
    undefined.check_monitor(settings.monitor)
    # Under the legacy protocol "val" is the test split.
    summarized = [name for name in SPLITS if name != "val" or dataset.protocol == "standard"]
    stamps = take_stamps(find_data_paths(components.config, dataset))
    keys = {name: keys_of_split(loaders[name].split) for name in summarized if name != "test"}
    splits: dict[str, SplitSummary] = {}
    for name in summarized:
        earlier = {other: keys[other] for other in keys if SPLITS.index(other) < SPLITS.index(name)}
        splits[name] = summarize(loaders[name], tasks, stamps, **earlier)
    _set_label_fractions(weighting, train.split, tasks)
    fit_tasks(tasks, train, runtime.num_workers)
    if train.per_source:
        check_per_source(weighting, str(components.config["names"]["weighting"]), settings)
    if has_source_statistics(dataset):
        _separate_statistics(model, list(train.sources))
    use_memory_keys(settings, model)
    tune_convolutions(not settings.deterministic and not train.per_source)  # the parts of sources vary in size
    model.to(components.device)
    for task in tasks.values():
        task.to(components.device)  # a loss may have class weights
    try_batch(model, tasks, train, settings.micro_batches, components.device)
    sample = LabeledBatch.load(tasks, train.first(1), components.device)
    find_last_layer(model, weighting, sample)
    return Data(loaders, splits, undefined, stamps, count_macs_of_batch(model, sample))


def _set_label_fractions(weighting: Weighting, split: Split, tasks: Mapping[str, Task]) -> None:
    """Give the methods that need it the fraction of training samples with each task's label."""
    for method in weighting.capable_of(UsesLabelFractions):
        if method.needs_label_fractions:
            counts = count_labels(split, tasks)
            if not counts:
                raise ConfigError(
                    "tasks.<t>.weight=size needs a dataset whose labels can be read without loading the samples; give "
                    "the weights as numbers"
                )
            method.set_label_fractions([count / len(split) for count in counts.values()])


def _separate_statistics(model: MultiTaskModel, sources: Sequence[str]) -> None:
    """Give the model running statistics for each source."""
    if model.independent_tasks:
        return  # the network of a task sees the samples of its sources only
    try:
        model.source_statistics = SourceStatistics(model, sources)
    except ValueError as error:
        raise ConfigError(f"dataset.sampling.batch_norm=per_source: {error}; use shared") from error


# ------------------------------------------------------------------------------------------------------- 4. place


def place(components: Components, data: Data) -> Parts:
    """Move everything to the device, and make the optimizer and the selection rules."""
    tasks, model, weighting, device = components.tasks, components.model, components.weighting, components.device
    skills = make_skills(tasks)
    stand_in(skills, data.undefined, data.loaders["train"])
    model.to(device)
    for task in tasks.values():
        task.to(device)  # a loss may have class weights
    if isinstance(weighting, LossWeighting | JacobianWeighting):
        weighting.to(device)
    elif isinstance(weighting, TaskGradientWeighting) and weighting.losses is not None:
        weighting.losses.to(device)  # a method that sees the Gram matrix only stays on the CPU, where its solver is
    for rotating in weighting.capable_of(RotatesRepresentation):
        if isinstance(model, SharedRepresentationModel):
            rotating.attach_rotations(model.add_rotations())
    for method in weighting.methods():
        if method.lr is None:
            method.lr = float(components.config["optimizer"]["lr"])
    set_computation(model, weighting, components.settings)
    try_computation(model, tasks, data.loaders["train"], device, components.settings)
    labeled = {name: data.splits[name].labeled for name in SPLITS if name in data.splits}
    settings, chosen = choose_length(components.settings, data.loaders["train"])
    return Parts(
        dataset=components.dataset,
        tasks=tasks,
        task_sizes=components.task_sizes,
        model=model,
        weighting=weighting,
        optimizer=make_optimizer(components.config["optimizer"], model, tasks),
        schedule=components.schedule,
        loaders=data.loaders,
        selection_rules=make_rules(settings, components.dataset, tasks, model, skills),
        skills=skills,
        settings=settings,
        chosen=chosen,
        runtime=components.runtime,
        device=device,
        macs=data.macs,
        match=components.match,
        splits=data.splits,
        notes=[
            *components.dataset.notes,
            *filter(None, [data.loaders["train"].describe_rows()]),
            *describe_computation(settings, device),
            *describe_small_maps(model, str(components.config["names"]["backbone"])),
            *describe_repeated(data.splits),
            *data.undefined.describe(labeled),
            *doubt_targets(tasks, data.loaders["train"].split),
            *doubt_splits(data.splits, tasks, components.config["dataset"]),
            *doubt_plan(settings, data.loaders["train"].num_batches),
            *doubt_warmup(components.schedule, settings, data.loaders["train"].num_batches),
        ],
        learned=learned_from_data(components.dataset, tasks),
        data=data.stamps,
    )

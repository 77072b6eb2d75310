"""Settings: what ships is good, every layer has its place, and no bad input starts anything."""

import json
import os
import pickle
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from fundarb.config import settings as module
from fundarb.config.layers import Entry
from fundarb.config.settings import ExecutionSettings, LimitSettings, Settings, VenueTerms, load_settings
from fundarb.core.errors import SettingsError
from fundarb.core.funding import PriceBasis

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "settings.ini").read_text()
KEY, SECRET = "FUNDARB_VENUES__OKX__API_KEY", "FUNDARB_VENUES__OKX__API_SECRET"
IDENTITY = {KEY: "key-0123456789", SECRET: "secret-0123456789"}


@pytest.fixture
def desk(tmp_path):
    """A folder with what ships, and a loader that never sees this process's environment."""
    (tmp_path / "settings.ini").write_text(SHIPPED)

    def load(ini=None, dotenv=None, env=None):
        if ini is not None:
            (tmp_path / "settings.ini").write_text(ini)
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        return load_settings(tmp_path / "settings.ini", env or {})

    load.folder = tmp_path
    return load


def refusal(load, *args, **kwargs):
    with pytest.raises(SettingsError) as caught:
        load(*args, **kwargs)
    message = str(caught.value)
    assert "Nothing was started." in message
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or not caught.value.__context__)
    return message


def swap(old, new):
    """Change the first occurrence below the comment at the head of the file."""
    body = SHIPPED.index("\n[runtime]\n")
    assert old in SHIPPED[body:], old
    return SHIPPED[:body] + SHIPPED[body:].replace(old, new, 1)


# --- what ships ---------------------------------------------------------------------------------


def test_shipped_file_loads_and_equals_the_defaults_of_the_code(desk):
    loaded = desk()
    assert loaded.limits == LimitSettings()
    assert loaded.execution == ExecutionSettings()
    assert list(loaded.venues) == ["binance", "hyperliquid", "okx", "bybit"]
    assert loaded.runtime.mode == "backtest"


@pytest.mark.parametrize("section", ["runtime", "paths", "limits", "execution"])
def test_shipped_file_spells_every_key(section):
    body = re.search(rf"^\[{section}\]$(.*?)(?=^\[|\Z)", SHIPPED, re.MULTILINE | re.DOTALL)[1]
    model = Settings.model_fields[section].annotation
    assert set(re.findall(r"^(\w+) =", body, re.MULTILINE)) == set(model.model_fields)


def test_shipped_figures_are_exact_and_have_their_types(desk):
    terms = desk().venues["hyperliquid"]
    assert (terms.taker_fee_bps, terms.maker_fee_bps) == (Decimal("4.5"), Decimal("1.5"))
    assert terms.price_basis is PriceBasis.ORACLE and terms.interval_h == 1
    assert isinstance(terms.half_spread_bps, float) and isinstance(terms.deposit_usd, Decimal)
    assert terms.as_of.isoformat() == "2026-11-22"


def test_fees_of_the_shipped_file_are_the_base_tiers(desk):
    fees = {venue: (str(t.maker_fee_bps), str(t.taker_fee_bps)) for venue, t in desk().venues.items()}
    assert fees == {
        "binance": ("2.0", "5.0"),
        "hyperliquid": ("1.5", "4.5"),
        "okx": ("2.0", "5.0"),
        "bybit": ("2.0", "5.5"),
    }


def test_env_example_names_only_what_is_known_and_sets_nothing(desk):
    example = (ROOT / ".env.example").read_text()
    assert desk(dotenv=example).secrets() == ()
    filled = re.sub(r"^(#\s*)?(FUNDARB_\w+__API_\w+=)$", r"\g<2>0123456789", example, flags=re.MULTILINE)
    assert len(desk(dotenv=filled).secrets()) == 9


def test_bybit_may_be_left_out(desk):
    assert "bybit" not in desk(SHIPPED[: SHIPPED.index("[venues.bybit]")]).venues


# --- layers -------------------------------------------------------------------------------------


def test_environment_beats_dotenv_beats_file_key_by_key(desk):
    dotenv = "FUNDARB_LIMITS__MAX_GROSS_X=3\nFUNDARB_LIMITS__COLLAR_BPS=21\n"
    loaded = desk(dotenv=dotenv, env={"FUNDARB_LIMITS__MAX_GROSS_X": "2"})
    assert (loaded.limits.max_gross_x, loaded.limits.collar_bps) == (2, 21)
    assert loaded.limits.max_venue_gross_x == Decimal("2.5")


def test_environment_reaches_a_venue(desk):
    loaded = desk(env={"FUNDARB_VENUES__HYPERLIQUID__TAKER_FEE_BPS": "4.05"})
    assert loaded.venues["hyperliquid"].taker_fee_bps == Decimal("4.05")
    assert loaded.venues["okx"].taker_fee_bps == 5


def test_the_process_environment_is_the_default(desk, monkeypatch):
    monkeypatch.setenv("FUNDARB_LIMITS__MAX_GROSS_X", "1.25")
    assert load_settings(desk.folder / "settings.ini").limits.max_gross_x == Decimal("1.25")


def test_a_settings_object_written_out_reads_nothing_hidden(desk, monkeypatch):
    loaded = desk()
    monkeypatch.setenv("FUNDARB_LIMITS__MAX_GROSS_X", "1.25")
    monkeypatch.setenv("LIMITS", '{"max_gross_x": 1}')
    monkeypatch.chdir(desk.folder)
    written_out = Settings(**{name: getattr(loaded, name) for name in Settings.model_fields})
    assert written_out.limits.max_gross_x == 4


@pytest.mark.parametrize("text", ["", "   "])
def test_a_variable_set_to_nothing_is_not_set(desk, text):
    assert desk(env={"FUNDARB_LIMITS__MAX_GROSS_X": text, KEY: text}).limits.max_gross_x == 4


def test_foreign_names_are_left_alone(desk):
    foreign = {"PATH": "/bin", "LIMITS__MAX_GROSS_X": "1", "XFUNDARB_X": "1", "FUNDARB_SHARED": "/data"}
    assert desk(dotenv="POSTGRES_PASSWORD=x\nexport OTHER='y'\n", env=foreign).limits.max_gross_x == 4


def test_dotenv_syntax(desk):
    dotenv = f"# ours\nexport {KEY}='with # and = in it'\n{SECRET}=\"$HOME-is-not-expanded\"\n"
    key, secret = desk(dotenv=dotenv).secrets()
    assert key.get_secret_value() == "with # and = in it"
    assert secret.get_secret_value() == "$HOME-is-not-expanded"


def test_no_dotenv_is_fine(desk):
    assert not (desk.folder / ".env").exists()
    assert desk().secrets() == ()


def test_byte_order_mark_and_windows_lines_are_read(desk):
    (desk.folder / "settings.ini").write_bytes(b"\xef\xbb\xbf" + SHIPPED.replace("\n", "\r\n").encode())
    assert desk().limits == LimitSettings()


def test_paths_start_at_the_folder_of_the_file_wherever_we_are(desk, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    paths = desk(env={"FUNDARB_PATHS__RUNS": "/srv/runs"}).paths
    assert (paths.lake, paths.runs) == (desk.folder / "lake", Path("/srv/runs"))


def test_paths_are_absolute_even_when_the_file_is_named_relatively(desk, monkeypatch):
    monkeypatch.chdir(desk.folder)
    assert load_settings(Path("settings.ini"), {}).paths.lake == desk.folder / "lake"
    assert load_settings("settings.ini", {}).paths.lake == desk.folder / "lake"


def test_settings_do_not_change(desk):
    loaded = desk()
    for change in (
        lambda: setattr(loaded, "limits", None),
        lambda: setattr(loaded.limits, "max_gross_x", 9),
        lambda: setattr(loaded.venues["okx"], "taker_fee_bps", 0),
    ):
        with pytest.raises(ValidationError):
            change()


def test_settings_survive_the_way_to_another_process(desk):
    loaded = desk(env=IDENTITY)
    assert pickle.loads(pickle.dumps(loaded)) == loaded


# --- bad files ----------------------------------------------------------------------------------

BAD_LINES = [
    # old line of the shipped file, new line, what the message must say
    ("max_gross_x = 4 ", "max_gros_x = 4 ", "[limits] max_gros_x: unknown, did you mean max_gross_x?"),
    ("max_gross_x = 4 ", "MAX_GROSS_X = 4 ", "[limits] MAX_GROSS_X: unknown"),
    ("max_gross_x = 4 ", "zzz = 4 ", "[limits] zzz: unknown, known are max_gross_x, max_venue"),
    ("max_gross_x = 4 ", "entry_collar_bps = 4", "[limits] entry_collar_bps: unknown"),
    ("max_gross_x = 4 ", "max_gross_x = ", "[limits] max_gross_x has no value"),
    ("max_gross_x = 4 ", "max_gross_x =  # 4", "[limits] max_gross_x has no value"),
    ("max_gross_x = 4 ", "max_gross_x", "[limits] is not `key = value`"),
    ("max_gross_x = 4 ", "max_gross_x: 4", "[limits] is not `key = value`"),
    ("max_gross_x = 4 ", "= 4", "[limits] is not `key = value`"),
    ("max_gross_x = 4 ", "max gross x = 4", "[limits] is not `key = value`"),
    ("max_gross_x = 4 ", "max_gross_x = 4\n4", "[limits] is not `key = value`"),
    ("max_gross_x = 4 ", "max_gross_x = four", "max_gross_x = 'four': should be a valid decimal"),
    ("max_gross_x = 4 ", "max_gross_x = 4,5", "max_gross_x = '4,5': should be a valid decimal"),
    ("max_gross_x = 4 ", "max_gross_x = -4", "max_gross_x = '-4': should be at least 0.01 times equity (notional of all"),
    ("max_gross_x = 4 ", "max_gross_x = 0", "max_gross_x = '0': should be at least 0.01 times equity"),
    ("max_gross_x = 4 ", "max_gross_x = nan", "max_gross_x = 'nan': should be a finite number"),
    ("max_gross_x = 4 ", "max_gross_x = 1e999", "max_gross_x = '1e999': should be at most 20 times equity (notional"),
    ("reduce_stable_bps = 100", "reduce_stable_bps = 40", "[limits]: reduce_stable_bps 40 is below block_stable_bps 50"),
    ("venues = binance, hyperliquid, okx", "venues = okx, okx", "[live] venues = 'okx, okx': should name okx once"),
    ("symbols = BTC, ETH, SOL", "symbols = BTC, SOL, BTC", "[live] symbols = 'BTC, SOL, BTC': should name BTC once"),
    ("symbols = BTC, ETH, SOL", "symbols = BTC,, SOL", "[live] symbols = 'BTC,, SOL': should have a name between"),
    ("max_gross_x = 4 ", "max_gross_x = 4\nmax_gross_x = 5", "max_gross_x stands twice, first at settings.ini:"),
    ("max_book_age_s = 5 ", "max_book_age_s = inf", "max_book_age_s = 'inf': should be a finite number"),
    ("max_book_age_s = 5 ", "max_book_age_s = nan", "max_book_age_s = 'nan': should be"),
    ("max_book_age_s = 5 ", "max_book_age_s = 5s", "max_book_age_s = '5s': should be a valid number"),
    ("max_drawdown_frac = 0.05", "max_drawdown_frac = 5", "max_drawdown_frac = '5': should be at most 0.5, a fraction: 0.05 is 5 per cent (loss"),
    ("max_drawdown_frac = 0.05", "max_drawdown_frac = 5%", "max_drawdown_frac = '5%': should be"),
    ("max_orders_per_min = 60", "max_orders_per_min = 60.5", "max_orders_per_min = '60.5': should be a valid integer"),
    ("max_orders_per_min = 60", "max_orders_per_min = 0", "max_orders_per_min = '0': should be at least 1"),
    ("block_margin_ratio = 0.5 ", "block_margin_ratio = 0.7", "[limits]: block_margin_ratio 0.7, reduce_margin_ratio"),
    ("block_margin_ratio = 0.5 ", "block_margin_ratio = 0.65", "the first must be lower, and both below 1"),
    ("reduce_margin_ratio = 0.65", "reduce_margin_ratio = 1", "the first must be lower, and both below 1"),
    ("mode = backtest", "mode = lvie", "[runtime] mode = 'lvie': should be 'backtest', 'paper' or 'live'"),
    ("mode = backtest", "mode = Live", "[runtime] mode = 'Live': should be 'backtest'"),
    ("mode = backtest", "#", "settings.ini [runtime] has no mode (what is real"),
    ("log_level = info", "log_level = loud", "log_level = 'loud': should be 'debug', 'info'"),
    ("lake = lake", "lake =", "[paths] lake has no value"),
    ("lake = lake", "", "settings.ini [paths] has no lake (folder of the market data)"),
    ("5, 10, 20 ", "10, 5, 20 ", "[execution]: repair_collars_bps must rise"),
    ("5, 10, 20 ", "5, 5 ", "[execution]: repair_collars_bps must rise"),
    ("5, 10, 20 ", "5, ten ", "repair_collars_bps = '5, ten': should be a valid decimal"),
    ("5, 10, 20 ", "5; 10 ", "repair_collars_bps = '5; 10': should be a valid decimal"),
    ("5, 10, 20 ", "5,, 10 ", "repair_collars_bps = '5,, 10': should be a valid decimal"),
    ("5, 10, 20 ", "5, 10, 40 ", "settings.ini: [execution] uses a collar of 40 bps: [limits] collar_bps is 20"),
    ("entry_collar_bps = 5 ", "entry_collar_bps = 25", "uses a collar of 25 bps: [limits] collar_bps is 20"),
    ("repair_deadline_s = 60", "repair_deadline_s = 1", "hedge_timeout_s is 2: repair_deadline_s is 1"),
    ("max_leverage_x = 3", "max_leverage_x = 11", "max_leverage_x is 11: [venues.hyperliquid] grants 10"),
    ("quote = USDT", "quote = EUR", "[venues.binance] quote = 'EUR': should be 'USDT' or 'USDC'"),
    ("taker_fee_bps = 5.0", "taker_fee_bps = -1", "[venues.binance] taker_fee_bps = '-1': should be at least 0 bps (of notional)"),
    ("taker_fee_bps = 5.0", "", "settings.ini [venues.binance] has no taker_fee_bps (of notional)"),
    ("interval_h = 8", "interval_h = 5", "[venues.binance] interval_h = '5': should divide 24"),
    ("interval_h = 8", "interval_h = 0", "[venues.binance] interval_h = '0': should divide 24"),
    ("price_basis = mark", "price_basis = last", "price_basis = 'last': should be 'mark' or 'oracle'"),
    ("maintenance_frac = 0.01", "maintenance_frac = 0.02", "maintenance_frac 0.02 at max_leverage 75: a new position"),
    ("max_leverage = 75", "max_leverage = 100", "maintenance_frac 0.01 at max_leverage 100: a new position"),
    ("as_of = 2026-11-22", "as_of = 22.11.2026", "as_of = '22.11.2026': should be a valid date"),
    ("as_of = 2026-11-22", "as_of = 2026-13-01", "as_of = '2026-13-01': should be"),
    ("latency_ms = 100", "latency_ms = 0.1", "latency_ms = '0.1': should be a valid integer"),
    ("depth_share = 0.002", "depth_share = 0", "depth_share = '0': should be at least 0.0000001"),
    ("[limits]", "[limit]", "[limit]: unknown, did you mean [limits]?"),
    ("[limits]", "[limit]", "settings.ini has no section [limits]"),
    ("[limits]", "[Limits]", "[Limits]: unknown, did you mean [limits]?"),
    ("[limits]", "[limits", "[limits: unknown, did you mean [limits]?"),
    ("[limits]", "[limits] x", "[limits] x: unknown"),
    ("[limits]", "[]", "[]: unknown, known are [runtime], [paths]"),
    ("[limits]", "[DEFAULT]\na = b\n[limits]", "[DEFAULT]: unknown"),
    ("[limits]", "[execution]\n[limits]", "[execution] stands twice, first on line"),
    ("[venues.binance]", "[venues.binanse]", "[venues.binanse]: unknown, did you mean [venues.binance]?"),
    ("[venues.binance]", "[venues]", "[venues]: unknown, did you mean [venues."),
    ("[venues.okx]", "[venues.okx]\napi_key = k3y-value-0123", "set FUNDARB_VENUES__OKX__API_KEY in the environment"),
    ("url = sqlite ", "url = sqlite3 ", "[storage] url = 'sqlite3': should be sqlite or postgresql://"),
    ("url = sqlite ", "url = postgresql://host ", "[storage] url: should be sqlite or postgresql://"),
    ("timeout_s = 5 ", "timeout_s = 0 ", "[storage] timeout_s = '0': should be at least 0.1"),
    ("[storage]", "[storage]\npassword = hunter22", "set FUNDARB_STORAGE__PASSWORD in the environment"),
    ("[runtime]", "mode = live\n[runtime]", "stands before the first [section]"),
]


@pytest.mark.parametrize("old, new, said", BAD_LINES, ids=[new[:40] or old[:40] for old, new, _ in BAD_LINES])
def test_a_bad_line_is_refused_with_the_line_to_mend(desk, old, new, said):
    message = refusal(desk, swap(old, new))
    assert said in message
    assert str(desk.folder / "settings.ini") in message


@pytest.mark.parametrize(
    "section", ["runtime", "paths", "limits", "execution", "venues.binance", "venues.hyperliquid", "venues.okx"]
)
def test_every_section_but_bybit_is_required(desk, section):
    without = re.sub(rf"^\[{re.escape(section)}\]$.*?(?=^\[|\Z)", "", SHIPPED, flags=re.MULTILINE | re.DOTALL)
    assert f"settings.ini has no section [{section}]" in refusal(desk, without)


@pytest.mark.parametrize("section", ["limits", "execution", "venues.bybit"])
def test_an_empty_section_is_refused_and_not_called_missing(desk, section):
    emptied = re.sub(
        rf"^(\[{re.escape(section)}\])$.*?(?=^\[|\Z)", r"\1\n# nothing\n", SHIPPED, flags=re.MULTILINE | re.DOTALL
    )
    message = refusal(desk, emptied)
    assert f"[{section}] is empty" in message and "has no section" not in message


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n; comments\n", "[limits]\n", "\ufeff"])
def test_an_empty_file_is_refused(desk, text):
    message = refusal(desk, text)
    assert "has no section [runtime]" in message and "has no section [venues.okx]" in message


def test_a_password_in_a_url_is_refused_and_not_repeated(desk):
    message = refusal(desk, swap("url = sqlite ", "url = postgresql://desk:hunter22@db/fundarb "))
    assert "[storage] url: holds a password: revoke it, and set FUNDARB_STORAGE__PASSWORD" in message
    assert "hunter22" not in message


def test_storage_may_be_left_out_and_its_password_is_a_secret(desk):
    without = re.sub(r"^\[storage\]$.*?(?=^\[)", "", SHIPPED, flags=re.MULTILINE | re.DOTALL)
    settings = desk(without, env={"FUNDARB_STORAGE__PASSWORD": "hunter22"})
    assert settings.storage.url == "sqlite"
    assert [secret.get_secret_value() for secret in settings.secrets()] == ["hunter22"]
    assert "hunter22" not in str(settings.public()) + repr(settings)


def test_line_numbers_are_those_of_an_editor(desk):
    (number,) = [i for i, line in enumerate(SHIPPED.split("\n"), 1) if line.startswith("max_drawdown")]
    message = refusal(desk, swap("max_drawdown_frac = 0.05", "max_drawdown_frac = 5"))
    assert f"settings.ini:{number} [limits] max_drawdown_frac = '5'" in message


def test_all_mistakes_of_all_layers_are_told_at_once(desk):
    wrong = swap("mode = backtest", "mode = lvie").replace("max_gross_x = 4", "max_gros_x = 4", 1)
    wrong = wrong.replace("taker_fee_bps = 4.5", "taker_fee_bps = x").replace("[venues.okx]", "[venues.okex]")
    message = refusal(
        desk,
        wrong,
        dotenv="FUNDARB_LIMITS__CLOAR_BPS=1\nnot a line\n",
        env={"FUNDARB_LIMITS__COLLAR_BPS": "-1", "FUNDARB_LIMIT__X": "1"},
    )
    assert "9 problems. Nothing was started." in message
    for said in (
        "[runtime] mode = 'lvie'",
        "max_gros_x: unknown",
        "[venues.hyperliquid] taker_fee_bps = 'x'",
        "[venues.okex]: unknown, did you mean [venues.okx]?",
        "has no section [venues.okx]",
        ".env:2 is not NAME=value",
        ".env:1 FUNDARB_LIMITS__CLOAR_BPS: unknown, did you mean FUNDARB_LIMITS__COLLAR_BPS?",
        "environment FUNDARB_LIMITS__COLLAR_BPS = '-1': should be at least 0.1 bps",
        "environment FUNDARB_LIMIT__X: unknown",
    ):
        assert said in message


def test_a_mistake_is_told_once(desk):
    message = refusal(desk, SHIPPED[: SHIPPED.index("[venues.bybit]")], env={"FUNDARB_VENUES__BYBIT__LOT_USD": "1"})
    assert message.count("settings.ini has no section [venues.bybit]") == 1
    assert "1 problem. Nothing was started." in message


def test_a_long_value_is_cut(desk):
    message = refusal(desk, swap("mode = backtest", "mode = " + "x" * 5000))
    assert len(message) < 400


@pytest.mark.parametrize(
    "old, new",
    [
        ("repair_deadline_s = 60", "repair_deadline_s = 6"),
        ("max_leverage_x = 3", "max_leverage_x = 10"),
        ("entry_collar_bps = 5 ", "entry_collar_bps = 20"),
        ("maintenance_frac = 0.01", "maintenance_frac = 0.0133"),
        ("max_orders_per_min = 60", "max_orders_per_min = 1"),
        ("cool_down_h = 1", "cool_down_h = 0"),
        ("max_drawdown_frac = 0.05", "max_drawdown_frac = 0.5"),
        ("maker_fee_bps = 2.0", "maker_fee_bps = -0.5"),
        ("mode = backtest", "  mode=backtest\t; a comment # of sorts"),
        ("lake = lake", "lake = /srv/lake#1;2"),
        ("[limits]", "; a comment\n[limits]  # and another"),
        ("[limits]", "[limits]\n\n\n"),
    ],
)
def test_what_is_just_within_the_rules_is_taken(desk, old, new):
    assert desk(swap(old, new))


# --- bad paths ----------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    message = refusal(load_settings, tmp_path / "settings.ini", {})
    assert "settings.ini: No such file or directory" in message


def test_a_directory_instead_of_the_file(tmp_path):
    assert "Is a directory" in refusal(load_settings, tmp_path, {})
    assert "Is a directory" in refusal(load_settings, Path("/"), {})


def test_a_directory_instead_of_dotenv(desk):
    (desk.folder / ".env").mkdir()
    assert ".env: Is a directory" in refusal(desk)


def test_a_dangling_dotenv_link_is_not_an_absent_dotenv(desk):
    (desk.folder / ".env").symlink_to(desk.folder / "gone")
    assert ".env: No such file" in refusal(desk)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(desk):
    (desk.folder / "settings.ini").chmod(0)
    assert "Permission denied" in refusal(desk)


@pytest.mark.parametrize("name", ["settings.ini", ".env"])
@pytest.mark.parametrize(
    "raw, said",
    [
        (b"mode = \xff\xfe", "not UTF-8 at byte 7"),
        ("[limits]".encode("utf-16"), "not UTF-8 at byte 0"),
        ("[limits]".encode("utf-16-le"), "not a text file"),
        (b"[limits]\0", "not a text file"),
    ],
)
def test_files_that_are_not_text(desk, name, raw, said):
    (desk.folder / name).write_bytes(raw)
    assert f"{name}: {said}" in refusal(desk)


# --- bad environments ---------------------------------------------------------------------------

BAD_NAMES = [
    ("FUNDARB_LIMITS__MAX_GROS_X", "did you mean FUNDARB_LIMITS__MAX_GROSS_X?"),
    ("FUNDARB_LIMITS_MAX_GROSS_X", "did you mean FUNDARB_LIMITS__MAX_GROSS_X?"),
    ("FUNDARB_MAX_GROSS_X", "did you mean FUNDARB_LIMITS__MAX_"),
    ("fundarb_limits__max_gross_x", "did you mean FUNDARB_LIMITS__MAX_GROSS_X?"),
    ("Fundarb_Limits__Max_Gross_X", "did you mean FUNDARB_LIMITS__MAX_GROSS_X?"),
    ("FUNDARB_LIMITS__MAX_GROSS_X__Y", "did you mean FUNDARB_LIMITS__MAX_GROSS_X?"),
    ("FUNDARB_VENUES__OKX__API_KEI", "did you mean FUNDARB_VENUES__OKX__API_KEY?"),
    ("FUNDARB_VENUES__OKEX__API_KEY", "did you mean FUNDARB_VENUES__OKX__API_KEY?"),
    ("FUNDARB_VENUES__OKX", "did you mean"),
    ("FUNDARB_LIMITS", "did you mean FUNDARB_LIMITS__"),
    ("FUNDARB_", "write FUNDARB_SECTION__KEY"),
    ("FUNDARB_X", "write FUNDARB_SECTION__KEY"),
]


@pytest.mark.parametrize("layer", ["environment", ".env"])
@pytest.mark.parametrize("name, said", BAD_NAMES)
def test_unknown_names_with_our_prefix_are_refused_without_their_value(desk, layer, name, said):
    value = "v4lue-that-may-be-secret"
    given = {"env": {name: value}} if layer == "environment" else {"dotenv": f"{name}={value}\n"}
    message = refusal(desk, **given)
    assert f"{layer}{':1' * (layer == '.env')} {name}: unknown, {said}" in message
    assert value not in message


def test_a_name_twice_in_dotenv_is_refused(desk):
    message = refusal(desk, dotenv="FUNDARB_LIMITS__COLLAR_BPS=21\nFUNDARB_LIMITS__COLLAR_BPS=22\n")
    assert ".env:2 FUNDARB_LIMITS__COLLAR_BPS stands twice, first at .env:1 FUNDARB" in message


def test_a_line_of_dotenv_that_says_nothing_is_refused_without_its_text(desk):
    message = refusal(desk, dotenv=f"A=1\n{KEY}='unclosed-s3cret\n")
    assert ".env:2 is not NAME=value" in message and "s3cret" not in message


def test_a_bad_value_names_the_layer_that_said_it(desk):
    dotenv, env = "FUNDARB_LIMITS__COLLAR_BPS=x\n", {"FUNDARB_LIMITS__COLLAR_BPS": "21"}
    assert ".env:1 FUNDARB_LIMITS__COLLAR_BPS = 'x': should be" in refusal(desk, dotenv=dotenv)
    assert desk(dotenv=dotenv, env=env).limits.collar_bps == 21  # a hidden value hurts nobody


# --- secrets ------------------------------------------------------------------------------------


def everything_shown(loaded):
    dumps = (loaded.public(), loaded.model_dump(), loaded.model_dump_json())
    return "".join(map(str, (repr(loaded), loaded, *dumps, json.dumps(loaded.public()))))


def test_secrets_arrive_and_are_shown_nowhere(desk):
    loaded = desk(env=IDENTITY)
    assert [s.get_secret_value() for s in loaded.secrets()] == list(IDENTITY.values())
    assert all(isinstance(s, SecretStr) for s in loaded.secrets())
    assert "0123456789" not in everything_shown(loaded)
    assert "api_key" not in json.dumps(loaded.public())


def test_public_is_the_same_with_and_without_secrets_and_is_json(desk):
    public = desk(env=IDENTITY).public()
    assert public == desk().public() == json.loads(json.dumps(public))
    assert public["venues"]["okx"]["taker_fee_bps"] == "5.0"
    assert public["limits"]["max_gross_x"] == "4"


@pytest.mark.parametrize("key", ["api_key", "api_secret"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(desk, key):
    message = refusal(desk, swap("[venues.okx]", f"[venues.okx]\n{key} = k3y-value-0123"))
    assert f"[venues.okx] {key}: a secret in a file is burnt" in message
    assert "k3y-value" not in message


@pytest.mark.parametrize(
    "line",
    [
        "api_secrett = {}",
        "api_secret: {}",
        "api_secret:{}==",
        "api_secret {}",
        "{}",
        "{}=",
        "{}==",
        "= {}",
        "apisecret={}",
    ],
)
def test_a_secret_in_a_malformed_line_is_not_repeated(desk, line):
    secret = "c29tZSBzZWNyZXQgdmFsdWU"
    message = refusal(desk, swap("[venues.okx]", "[venues.okx]\n" + line.format(secret)))
    assert secret not in message


@pytest.mark.parametrize("layer", ["env", "dotenv"])
def test_a_bad_secret_is_refused_and_not_repeated(desk, layer):
    short = {KEY: "s3cr3t", SECRET: "secret-0123456789"}
    given = {"env": short} if layer == "env" else {"dotenv": "".join(f"{k}={v}\n" for k, v in short.items())}
    message = refusal(desk, **given)
    assert f"{KEY}: " in message and "at least 8" in message
    assert "s3cr3t" not in message and "0123456789" not in message


@pytest.mark.parametrize("name", [KEY, SECRET])
def test_half_an_identity_is_refused(desk, name):
    message = refusal(desk, env={name: "0123456789"})
    assert "[venues.okx]: api_key and api_secret come together" in message and "0123456789" not in message


def test_errors_of_the_models_hide_their_input():
    with pytest.raises(ValidationError) as caught:
        VenueTerms(api_key="s3cr3t-0123456789", api_sekret="s3cr3t-0123456789")
    assert "s3cr3t" not in str(caught.value)


def test_a_layer_shows_no_secret_to_a_library_that_logs_it():
    entry = Entry("venues.okx", "api_key", "s3cret-0123456789", ".env:1", is_secret=True)
    assert "s3cret" not in repr(module._source({("venues.okx", "api_key"): entry}))


# --- anything at all ----------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
FRAGMENTS = st.sampled_from(
    [*re.findall(r"^.*$", SHIPPED, re.MULTILINE), "[", "]", "=", "[limits]", "\ufeff", "\r", "\0"]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ini=ANY_TEXT | st.lists(FRAGMENTS | ANY_TEXT, max_size=30).map("\n".join), dotenv=ANY_TEXT)
def test_no_text_does_more_than_be_refused(desk, ini, dotenv):
    """Whatever stands in the files, the answer is settings or one SettingsError that can be printed."""
    (desk.folder / "settings.ini").write_bytes(ini.encode())
    (desk.folder / ".env").write_bytes(dotenv.encode())
    try:
        desk()
    except SettingsError as error:
        str(error).encode()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["FUNDARB_LIMITS__COLLAR_BPS", KEY, "FUNDARB_PATHS__LAKE", "FUNDARB_X"]), text=st.text())
def test_no_variable_does_more_than_be_refused(desk, name, text):
    try:
        desk(env={name: text})
    except SettingsError as error:
        str(error).encode()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.decimals(1, "1e8", allow_nan=False, allow_infinity=False))
def test_money_arrives_digit_for_digit(desk, value):
    loaded = desk(env={"FUNDARB_LIMITS__MAX_PAIR_NOTIONAL_USD": str(value)})
    assert str(loaded.limits.max_pair_notional_usd) == str(value)

"""The terms of two instruments that many tests trade: a large coin, and a small one with smaller steps."""

from decimal import Decimal as D

from msgspec.structs import replace

from fundarb.core.funding import PriceBasis
from fundarb.core.models import Instrument

BINANCE = Instrument(
    venue="binance",
    symbol="BTC",
    venue_symbol="BTCUSDT",
    quote="USDT",
    units_per_price=D(1),
    lot_step_base=D("0.001"),
    min_qty_base=D("0.001"),
    min_notional_usd=D(100),
    price_tick=D("0.1"),
    maker_fee_bps=D(2),
    taker_fee_bps=D(5),
    max_leverage=D(20),
    maintenance_frac=D("0.004"),
    liquidation_fee_bps=D(120),
    interval_h=8,
    rate_cap=D("0.003"),
    price_basis=PriceBasis.MARK,
)
SOL = replace(
    BINANCE,
    symbol="SOL",
    venue_symbol="SOL",
    lot_step_base=D("0.01"),
    min_qty_base=D("0.01"),
    min_notional_usd=D(5),
    price_tick=D("0.01"),
    maintenance_frac=D("0.01"),
    liquidation_fee_bps=D(100),
)

// Numbers as gradwire.analysis.formatting writes them.

const MISSING = "-";

// Digits of a number as toFixed and toPrecision give them, but with exact halves rounded to the even digit.
function halfToEven(value, text, longer) {
  const tail = longer.slice(text.length).replace(/^\./, "");
  if (!/^50*$/.test(tail)) return text;
  const kept = longer.slice(0, text.length);
  return Number(kept.at(-1)) % 2 === 0 ? kept : text;
}

function fixed(value, decimals) {
  const size = Math.abs(value);
  const text = halfToEven(size, size.toFixed(decimals), size.toFixed(decimals + 25));
  return value < 0 ? `-${text}` : text;
}

function rounded(value, digits) {
  const [longer, exponent] = value.toExponential(digits + 24).split("e");
  const [text, ownExponent] = value.toExponential(digits - 1).split("e");
  return exponent === ownExponent ? Number(`${halfToEven(value, text, longer)}e${exponent}`) : Number(value.toPrecision(digits));
}

function significant(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return MISSING;
  if (value === 0) return "0";
  const near = rounded(value, digits);
  if (Math.abs(near) < 1e-4 || Math.abs(near) >= 1e6) {
    return near.toExponential(digits - 1).replace(/e([+-])(\d)$/, "e$10$2");
  }
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(near)) + 1e-12));
  return near.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

const LONG_SECONDS = [[2 * 86400, "d", 86400], [7200, "h", 3600], [120, "min", 60]];
const SHORT_SECONDS = [[1, "s"], [1e-3, "ms"], [1e-6, "us"], [1e-9, "ns"]];

function timeUnit(largest) {
  if (!(largest > 0) || !Number.isFinite(largest)) return [1, "s"];
  const near = rounded(largest, 3);
  for (const [least, unit, factor] of LONG_SECONDS) if (near >= least) return [factor, unit];
  return SHORT_SECONDS.find(([factor]) => near >= factor) ?? SHORT_SECONDS.at(-1);
}

function formatSeconds(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return MISSING;
  const [factor, unit] = timeUnit(seconds);
  return `${significant(seconds / factor)} ${unit}`;
}

const formatRatio = (ratio) => (ratio === null ? MISSING : `${significant(ratio)}x`);
const formatCount = (count) => (count === null ? MISSING : Math.floor(count + 0.5).toLocaleString("en-US"));
const formatPercent = (share) => (share > 0 && share < 0.005 ? "less than 1 %" : `${fixed(100 * share, 0)} %`);

function formatMetric(value, goal) {
  if (value === null) return MISSING;
  return goal.share ? `${fixed(100 * value, 1)} %` : significant(value);
}

// Quantities as people type them: a number and a unit, read and written without rounding.
const BANDWIDTH = {
  units: [["Tbit/s", 12], ["Gbit/s", 9], ["Mbit/s", 6], ["kbit/s", 3], ["bit/s", 0]],
  also: [["Tbps", 12], ["Gbps", 9], ["Mbps", 6], ["kbps", 3], ["bps", 0]],
};
const DURATION = {
  units: [["s", 0], ["ms", -3], ["us", -6], ["ns", -9]],
  also: [["\u00b5s", -6], ["\u03bcs", -6]],
};
const FACTOR = { units: [["x", 0]], also: [["", 0]] };

function parseQuantity(text, quantity) {
  const match = /^\s*(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,3}))?\s*(\S*)\s*$/.exec(text);
  const unit = match && [...quantity.units, ...quantity.also].find(([name]) => name === match[3]);
  return unit ? Number(`${match[1]}e${Number(match[2] ?? 0) + unit[1]}`) : NaN;
}

function formatQuantity(value, quantity) {
  const [unit, power] = quantity.units.find(([, exponent]) => value >= Number(`1e${exponent}`)) ?? quantity.units.at(-1);
  return `${Number((value / Number(`1e${power}`)).toPrecision(15))} ${unit}`;
}

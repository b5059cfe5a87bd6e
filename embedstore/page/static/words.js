// Values -> the words and numbers that people read.

const commas = new Intl.NumberFormat("en", {maximumFractionDigits: 1});

// A whole number, or a sum of weights, with commas.
export function count(number) {
  return commas.format(number);
}

// A count for the side of a chart: 1, 20, 5k, 1M.
export function short(number) {
  if (number >= 1e6) return `${number / 1e6}M`;
  return number >= 1e3 ? `${number / 1e3}k` : String(number);
}

// "1 picture", "2 pictures".
export function counted(number, one, several = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : several}`;
}

// A score, a threshold or a rate.
export function decimals(number) {
  return number === null || number === undefined || Number.isNaN(number) ? "not measured" : number.toFixed(4);
}

export function percent(part, whole) {
  if (!whole) return "0 %";
  const share = (100 * part) / whole;
  return `${share > 0 && share < 1 ? share.toPrecision(2) : share.toFixed(1)} %`;
}

export const SAID = {yes: "labelled yes", no: "labelled no", "?": "cannot tell", open: "waits for a label"};

// The accessible name of a tile: what can be read on it, in that order, and then what can only be seen.
export function spoken({place, score, match, answer, truth, missing}) {
  const read = [missing, decimals(score), answer].filter(Boolean).join(" ");
  const seen = [match ? "match" : "no match", `place ${count(place + 1)}`];
  if (truth) seen.push(`the column says ${truth}`);
  return [read, ...seen].join(", ");
}

export const PICKS = {
  given: "given with the picture",
  random: "drawn at random, so that figures hold for the whole store",
  near: "near the threshold, where a label tells most",
  search: "chosen by you while looking",
};

// What a person types as a query <-> its terms: "2:golden retriever + grass - snow", the grammar of the command line,
// whose home is Query.parse in embedstore/searching/queries.py: a test holds this to it.

const WORD = /(?:"[^"]*"|\S)+/g;
const WEIGHTED = /^(\d+\.?\d*|\.\d+):\s*(\S.*)$/;

// A text -> [{text, weight}]; an Error where nothing stands after a sign. Quotes keep a sign in a text.
export function parseTerms(typed) {
  const parts = [{sign: "", words: []}];
  for (const word of typed.match(WORD) || []) {
    if (word === "+" || word === "-") parts.push({sign: word, words: []});
    else parts.at(-1).words.push(word.split('"').length > 2 ? word.replaceAll('"', "") : word); // a lone quote is an inch
  }
  if (parts.length > 1 && !parts[0].words.length) parts.shift();
  if (parts.length === 1 && !parts[0].sign && !parts[0].words.length) return [];
  const mixed = parts.length > 1 || parts[0].sign;
  return parts.map(({sign, words}) => {
    if (!words.length) throw new Error(`nothing stands after the ${sign}; a mix is such as: dog + grass - 2:snow`);
    const text = words.join(" ");
    if (!text.trim()) throw new Error("nothing stands between the quotes; give some words, such as: a dog on grass");
    const found = mixed ? WEIGHTED.exec(text) : null;
    const weight = (found ? Number(found[1]) : 1) * (sign === "-" ? -1 : 1);
    return {text: found ? found[2] : text, weight};
  });
}

// The text terms as a person would type them: read again they are the same.
export function spellTerms(terms) {
  const texts = terms.filter((term) => term.text !== undefined);
  const mixed = texts.length > 1 || texts.some(({weight}) => weight !== 1);
  return texts
    .map(({text, weight}, at) => {
      const size = mixed && (Math.abs(weight) !== 1 || WEIGHTED.test(text)) ? `${Math.abs(weight)}:` : "";
      const sign = weight < 0 ? "- " : at || (mixed && texts.length === 1) ? "+ " : ""; // one by itself has no weight without a sign
      const quoted = /(^|\s)[+-](\s|$)/.test(text) ? `"${text}"` : text;
      return sign + size + quoted;
    })
    .join(" ");
}

// The query of a concept's label, such as "dog + grass against cat, wolf".
export function queryOf(label) {
  const [wanted, against = ""] = label.split(" against ");
  return {terms: parseTerms(wanted), against: against.split(", ").filter(Boolean), template: null};
}

export function nameOf(term) {
  if (term.text !== undefined) return term.text;
  return term.id !== undefined ? `like ${term.id.slice(0, 8)}` : "picture";
}

// The right column: what charts and controls stand there, in order.

import {effect} from "./vendor/signals-core.js";
import {curvePanel} from "./curve.js";
import {decidePanel} from "./decide.js";
import {figuresPanel} from "./figures.js";
import {histogramPanel} from "./histogram.js";
import {thresholdPanel} from "./threshold.js";

export function rightColumn(view) {
  const root = document.createElement("div");
  root.className = "es-right";
  root.append(thresholdPanel(view), figuresPanel(view), histogramPanel(view), curvePanel(view), decidePanel(view));
  view.dispose.push(effect(() => (root.hidden = !view.scored.value || !view.scored.value.n)));
  return root;
}

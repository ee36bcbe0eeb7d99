// Colours that can be read: WCAG 2.2, 1.4.3. Pure.

const SURFACES = ["#ffffff", "#161b22"];

/** More than the 4.5 of WCAG: a line may be tinted. */
const WANTED = 6;
const STEPS = 20;

/** Whether white is read better on a colour than black. */
export function isDark(hex) {
  return ratio(hex, "#ffffff") > ratio(hex, "#000000");
}

/** A CSS colour that is as near to this one as can be read, in the light and in the dark. */
export function onBothThemes(hex) {
  const [light, dark] = SURFACES.map((surface) => readable(hex, surface));
  return `light-dark(${light}, ${dark})`;
}

/** The contrast ratio of two colours, from 1 to 21. */
export function ratio(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function readable(hex, surface) {
  const end = isDark(surface) ? 255 : 0;
  const mixed = (step) => `#${channels(hex).map((value) => Math.round(value + ((end - value) * step) / STEPS).toString(16).padStart(2, "0")).join("")}`;
  for (let step = 0; step < STEPS; step += 1) if (ratio(mixed(step), surface) >= WANTED) return mixed(step);
  return mixed(STEPS);
}

function luminance(hex) {
  const [red, green, blue] = channels(hex).map((value) => (value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function channels(hex) {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

// Dark, light, or as the system likes it.

const THEME = "jobwire.theme";
const NEXT = { "": "dark", dark: "light", light: "" };
const NAMES = { "": "Theme: system", dark: "Theme: dark", light: "Theme: light" };

/** Use the theme that was chosen; its name. */
export function useTheme() {
  const chosen = localStorage.getItem(THEME) ?? "";
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  return NAMES[chosen] ?? NAMES[""];
}

/** Choose the next theme; its name. */
export function nextTheme() {
  localStorage.setItem(THEME, NEXT[localStorage.getItem(THEME) ?? ""] ?? "");
  return useTheme();
}

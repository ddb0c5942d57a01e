// Brings the page to life: theme, copying, tables, pictures.

const THEMES = ["system", "light", "dark"];

/** Let a button go through the themes; the choice is kept where the browser allows it. */
function startTheme(button) {
  let theme = "system";
  try {
    theme = localStorage.getItem("circuitgraph-theme") ?? theme;
  } catch {
    // A page opened from a disk may not be allowed to keep anything.
  }
  const apply = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    apply();
    try {
      localStorage.setItem("circuitgraph-theme", theme);
    } catch {
      // The same.
    }
  });
  if (!THEMES.includes(theme)) theme = "system";
  apply();
}

/** Let a button copy the text of an element; where that is forbidden, select it. */
function startCopy(button) {
  const source = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected";
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
}

startTheme(document.getElementById("theme"));
document.querySelectorAll("[data-copy]").forEach(startCopy);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".tools").forEach((tools) => {
  tools.hidden = false;
});
document.querySelectorAll("[data-filter]").forEach((input) => {
  const table = document.getElementById(input.dataset.filter);
  input.addEventListener("input", () => narrow(table, input.value));
});
document.querySelectorAll("[data-keep]").forEach((button) => {
  const table = document.getElementById(button.dataset.keep);
  button.addEventListener("click", () => keepFile(`${button.dataset.keep}.csv`, asCsv(table)));
});
document.querySelectorAll(".picture svg").forEach(startPicture);
document.querySelectorAll(".circuit").forEach(startCircuit);
// What is folded on the screen is unfolded on paper.
const folded = [];
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not([open])").forEach((details) => {
    details.open = true;
    folded.push(details);
  });
});
window.addEventListener("afterprint", () => {
  folded.splice(0).forEach((details) => {
    details.open = false;
  });
});
document.documentElement.classList.add("ready");

// Sends a verdict when a button is pressed, and shows what was decided or why it could not be.
"use strict";

async function decide(form, verdict) {
  const { item, className, which } = form.dataset;
  const text = verdict === "reword" ? form.querySelector("textarea").value : null;
  const body = { item, class_name: className, which: which === undefined ? null : which, verdict, text };
  const said = form.querySelector("output");
  try {
    const answer = await fetch("/verdict", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const found = await answer.json();
    form.dataset.decided = answer.ok && verdict !== "undo" ? verdict : "";
    said.textContent = !answer.ok ? found.detail : verdict === "undo" ? "undone" : verdict + "ed";
    if (answer.ok) document.getElementById("count").textContent = found.decided;
  } catch (error) {
    said.textContent = "ltgc review does not run any more: start it again";
  }
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.dataset.item) decide(event.target, event.submitter.value);
  else location.search = new URLSearchParams(new FormData(event.target)).toString();
});

"use strict";
// The pages are whole without this; it keeps them up to date, asks twice, and takes keys.
const word = document.querySelector("meta[name=console-word]").content;
const base = document.querySelector("meta[name=console-base]").content;
const page = document.body.dataset.page;
const here = location.pathname.replace(/\/$/, "");
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const parsed = (html) => {
  const made = document.createElement("template");
  made.innerHTML = html.trim();
  return made.content;
};
const say = (text) => { one("#said").textContent = text; };

const post = (path, body) => fetch(path, {
  method: "POST", body, headers: { "X-Console-Word": word }, cache: "no-store",
});
const words = async (answer) => (await answer.text()).trim();

// -- What is told as it happens -------------------------------------------------------------------

function follow(path, take) {
  const live = one("#live");
  const source = new EventSource(path);
  source.onopen = () => { live.className = "live on"; live.textContent = "Live"; };
  source.onmessage = (event) => take(JSON.parse(event.data), event.lastEventId);
  source.onerror = () => {
    live.className = "live off";
    live.textContent = source.readyState === EventSource.CLOSED ? "The console has ended" : "Not live: trying again";
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(path, take), 3000);
  };
  addEventListener("pagehide", () => source.close());
}

// -- Fleet ----------------------------------------------------------------------------------------

function fleet() {
  const body = one("#fleet tbody");
  const search = one("#search");
  const space = one("#namespace");
  let level = "";

  const matches = (row) => {
    const wanted = search.value.trim().toLowerCase();
    return (!level || row.dataset.level === level)
      && (!space.value || row.dataset.ns === space.value)
      && (!wanted || row.textContent.toLowerCase().includes(wanted));
  };
  const keep = () => sessionStorage.setItem("fleet", JSON.stringify([search.value, space.value, level]));
  const press = () => {
    for (const chip of all("#counts .chip")) chip.setAttribute("aria-pressed", String(chip.dataset.level === level));
  };
  const filter = () => {
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !matches(row);
      if (!row.hidden) shown += 1;
    }
    one("#nothing").hidden = shown > 0;
    press();
    keep();
    return shown;
  };
  const filterAloud = () => say(`${filter()} models`);
  const place = (row) => {
    // Rows stand in the order of their texts; this finds the first that comes behind.
    let low = 0, high = body.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (body.rows[middle].dataset.order < row.dataset.order) low = middle + 1; else high = middle;
    }
    body.insertBefore(row, body.rows[low] || null);
  };
  const change = (key, html) => {
    const before = document.getElementById(`r-${key}`);
    const focused = before && before.contains(document.activeElement);
    if (html === null) { if (before) before.remove(); return; }
    const after = parsed(`<table><tbody>${html}</tbody></table>`).querySelector("tr");
    after.classList.add("fresh", "laid");
    after.hidden = !matches(after);
    if (before && before.dataset.order === after.dataset.order) before.replaceWith(after);
    else { if (before) before.remove(); place(after); }
    if (focused) one("a", after).focus({ preventScroll: true });
    if ((!before || before.dataset.level !== after.dataset.level) && after.dataset.level < "2")
      say(`${key}: ${one(".c-level", after).textContent}`);
    if (![...space.options].some((option) => option.value === after.dataset.ns || option.text === after.dataset.ns))
      space.add(new Option(after.dataset.ns));
  };

  // Some at a time, so that keys are answered meanwhile.
  const lay = () => {
    const rows = all("tr:not(.laid)", body).slice(0, 50);
    for (const row of rows) row.classList.add("laid");
    if (rows.length) setTimeout(lay, 50);
  };
  requestAnimationFrame(() => setTimeout(lay, 200));
  follow(`${here}/changes?after=${one("#fleet").dataset.revision}`, (told) => {
    if (told.reload) { location.reload(); return; }
    for (const [key, html] of Object.entries(told.rows)) change(key, html);
    const at = document.activeElement && document.activeElement.closest("#counts") && document.activeElement.dataset.level;
    one("#counts").innerHTML = told.counts;
    if (at) { const chip = one(`#counts [data-level="${at}"]`); if (chip) chip.focus(); }
    one("#notes").innerHTML = told.notes;
    press();
    one("#nothing").hidden = all("tr:not([hidden])", body).length > 0;
  });

  const [text, kept, pressed] = JSON.parse(sessionStorage.getItem("fleet") || "[\"\",\"\",\"\"]");
  if (text || kept || pressed) { search.value = text; space.value = kept; level = pressed; filter(); }
  let later = 0;
  search.addEventListener("input", () => { clearTimeout(later); later = setTimeout(filterAloud, 60); });
  space.addEventListener("change", filterAloud);
  one("#counts").addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    level = level === chip.dataset.level ? "" : chip.dataset.level;
    filterAloud();
  });
  const step = (by) => {
    const rows = all("tr:not([hidden])", body);
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
    if (next) one("a", next).focus();
  };
  return {
    "/": () => search.select(),
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    e: () => { level = level === "0" ? "" : "0"; filterAloud(); },
    Escape: () => { search.value = ""; space.value = ""; level = ""; filterAloud(); },
  };
}

// -- One model ------------------------------------------------------------------------------------

const model = here.replace(/\/(try|compare)$/, "");

function overview() {
  const chosen = one("#log-of");
  const pods = () => {
    const names = all("#pods [data-pod]").map((row) => row.dataset.pod);
    const wanted = names.flatMap((name) => [["model-server", name], ["poller", name]]);
    const value = chosen.value;
    chosen.replaceChildren(new Option("a pod …", ""), ...wanted.map(([container, name]) =>
      new Option(`${container} of ${name}`, `pod=${encodeURIComponent(name)}&container=${container}`)));
    chosen.value = value;
    if (chosen.selectedIndex < 0) chosen.value = "";
  };
  const read = async () => {
    const log = one("#log");
    one("#log-again").hidden = log.hidden = !chosen.value;
    if (!chosen.value) return;
    const answer = await fetch(`${model}/log?${chosen.value}`);
    log.textContent = await answer.text();
    log.scrollTop = log.scrollHeight;
  };
  pods();
  chosen.addEventListener("change", read);
  one("#log-again").addEventListener("click", read);
  one("#yaml-show").addEventListener("click", async () => {
    const answer = await fetch(`${model}/manifest`);
    if (answer.ok) one("#yaml").innerHTML = await answer.text(); else one("#yaml").textContent = await words(answer);
    one("#yaml-show").textContent = "Read it again";
  });

  follow(`${here}/changes`, (told) => {
    const problem = one("#problem");
    problem.hidden = !(told.problem || told.gone);
    problem.textContent = told.gone ? "It has been deleted." : told.problem || "";
    for (const [id, html] of Object.entries(told.sections || {})) {
      const section = document.getElementById(id);
      const asked = section.contains(document.activeElement) ? document.activeElement.dataset.ask : null;
      section.innerHTML = html;
      if (asked) { const again = one(`[data-ask="${asked}"]`, section); if (again) again.focus(); }
      if (id === "pods") pods();
      if (id === "summary") say(one(".says", section).textContent);
    }
  });

  const dialog = one("#asked");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-ask]");
    if (!button) return;
    const version = button.dataset.versionOf ? document.getElementById(button.dataset.versionOf).value : button.dataset.version;
    const answer = await post(`${model}/ask`, JSON.stringify({ key: button.dataset.ask, version: version ?? null }));
    if (answer.ok) dialog.innerHTML = await answer.text();
    else dialog.replaceChildren(parsed("<h2 id=\"asked-title\">That can’t be done now</h2><p class=\"note\"></p><p class=\"row end\"><button type=\"button\" class=\"plain\" data-close>Close</button></p>"));
    if (!answer.ok) one(".note", dialog).textContent = await words(answer);
    dialog.showModal();
  });
  dialog.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if ("close" in button.dataset) dialog.close();
    if ("sure" in button.dataset) {
      one("[data-step=\"1\"]", dialog).hidden = true;
      one("[data-step=\"2\"]", dialog).hidden = false;
      one("[data-step=\"2\"] [data-close]", dialog).focus();
    }
    if (button.dataset.do) {
      const result = one(".result", dialog);
      for (const each of all("[data-step=\"2\"] button", dialog)) each.disabled = true;
      result.textContent = "Asking the operator …";
      const answer = await post(`${model}/do`, JSON.stringify({ word: button.dataset.do }));
      if (answer.ok) result.innerHTML = await answer.text();
      else { result.replaceChildren(parsed("<p class=\"note\"></p>")); one(".note", result).textContent = await words(answer); }
      one("[data-step=\"2\"]", dialog).replaceChildren(parsed("<button type=\"button\" class=\"plain\" data-close>Close</button>"));
      one("[data-step=\"2\"] button", dialog).focus();
    }
  });
  return {};
}

// -- Try it ---------------------------------------------------------------------------------------

function trying() {
  const answers = one("#answers");
  if (!answers) return {};
  const form = () => one("form.signature:not([hidden])");
  const query = (photo) => {
    const asked = new URLSearchParams({ signature: form().dataset.signature });
    for (const box of all("[name=version]:checked")) asked.append("version", box.value);
    if (photo) asked.set("photo", "1");
    return asked;
  };
  const show = async (title, picture, photo, body) => {
    const part = document.createElement("section");
    part.className = "card";
    part.setAttribute("aria-label", `Answers about ${title}`);
    const head = document.createElement("div");
    head.className = "asked-photo";
    if (picture) { const image = new Image(); image.src = picture; image.alt = ""; head.append(image); }
    const name = document.createElement("h2");
    name.textContent = title;
    head.append(name);
    const said = document.createElement("div");
    said.textContent = "Asking …";
    part.append(head, said);
    if (one(":scope > .dim", answers)) answers.replaceChildren();
    answers.prepend(part);
    while (answers.children.length > 20) answers.lastElementChild.remove();
    const asked = query(photo);
    const answer = await post(`${model}/predict?${asked}`, body);
    if (answer.ok) said.innerHTML = await answer.text();
    else { said.replaceChildren(parsed("<p class=\"note\"></p>")); one(".note", said).textContent = await words(answer); }
    const golden = one("[data-golden]", said);
    if (golden) golden.addEventListener("click", async () => {
      const made = await post(`${model}/golden?${asked}`, body);
      if (!made.ok) { golden.after(await words(made)); return; }
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await made.blob());
      link.download = (made.headers.get("content-disposition") || "").match(/filename="([^"]+)"/)?.[1] || "golden";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      say("recorded: give the file to model_publish --golden");
    });
  };
  const photos = async (files) => {
    for (const file of files) await show(file.name || "a photo", URL.createObjectURL(file), true, file);
  };

  one("#signature").addEventListener("change", (event) => {
    for (const each of all("form.signature")) each.hidden = each.dataset.signature !== event.target.value;
  });
  all("[name=version]").forEach((box) => box.addEventListener("change", () => {
    const checked = all("[name=version]:checked");
    // Two are put side by side; the one that was chosen first gives way.
    if (checked.length > 2) checked.find((each) => each !== box).checked = false;
  }));
  for (const each of all("form.signature")) {
    each.addEventListener("submit", (event) => {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(each));
      show("Your values", "", false, JSON.stringify(values));
    });
    const drop = one(".drop", each);
    if (!drop) continue;
    const choose = one("[type=file]", drop);
    choose.addEventListener("change", () => { photos([...choose.files]); choose.value = ""; });
    const over = (is) => (event) => { event.preventDefault(); drop.classList.toggle("over", is); };
    drop.addEventListener("dragover", over(true));
    drop.addEventListener("dragleave", over(false));
    drop.addEventListener("drop", (event) => { over(false)(event); photos([...event.dataTransfer.files]); });
    camera(drop, photos);
  }
  return {};
}

function camera(drop, photos) {
  const box = one(".camera", drop);
  const video = one("video", box);
  const stop = () => {
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    video.srcObject = null;
    box.hidden = true;
  };
  one("[data-camera]", drop).addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      box.hidden = false;
      await video.play();
      one("[data-shoot]", box).focus();
    } catch (error) { say(`no camera: ${error.message}`); one("[data-camera]", drop).textContent = "There is no camera"; }
  });
  one("[data-stop]", box).addEventListener("click", stop);
  one("[data-shoot]", box).addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    stop();
    canvas.toBlob((blob) => photos([new File([blob], "camera.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.92);
  });
}

// -- What all pages have --------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy], [data-open]");
  if (!button) return;
  if (button.dataset.open) { document.getElementById(button.dataset.open).showModal(); return; }
  const text = one("pre", button.parentElement).textContent;
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

const pages = { fleet, model: overview, try: trying };
const keys = pages[page] ? pages[page]() : {};
if (model !== base) Object.assign(keys, {
  f: () => { location.href = `${base}/`; },
  o: () => { location.href = model; },
  t: () => { location.href = `${model}/try`; },
  c: () => { location.href = `${model}/compare`; },
});
keys["?"] = () => one("#help").showModal();
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]") || !keys[event.key]) return;
  if (typing && event.key !== "Escape") return;
  if (typing) event.target.blur();
  event.preventDefault();
  keys[event.key]();
});

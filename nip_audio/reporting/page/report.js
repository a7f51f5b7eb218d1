"use strict";
(() => {
  const PER_PAGE = 50;
  const $ = (id) => document.getElementById(id);
  const read = (id) => JSON.parse($(id).textContent);
  const head = read("head");
  const files = read("files");
  const speakers = read("speakers");
  const F = Object.fromEntries(head.files.map((name, i) => [name, i]));
  const S = Object.fromEntries(head.speakers.map((name, i) => [name, i]));
  const word = (i) => (i === null ? "" : head.words[i]);
  const gravity = new Map(head.order.map((verdict, i) => [verdict, i]));
  const limit = head.limits.distance_threshold;
  const { group, groups, same, distance, meaning, p_value: share } = head.terms;

  /* Everything that comes from a record becomes text, never markup. */
  function make(tag, kind, ...inside) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    element.append(...inside.filter((part) => part !== null && part !== undefined));
    return element;
  }
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const small = (value) =>
    value === null ? "–" : value !== 0 && value < 0.001 ? value.toExponential(1) : value.toFixed(3);
  const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
  const verdict = (name) => make("span", `verdict ${name}`, name.replaceAll("_", " "));

  /* A table that holds many rows and shows one page of them. */
  class PagedTable {
    constructor(place, what, columns, rows, sort) {
      Object.assign(this, { what, columns, rows, sort, page: 0, keep: () => true });
      this.heads = columns.map((column, i) => {
        const button = make("button", "", column.label);
        button.type = "button";
        if (column.title) button.title = column.title;
        button.addEventListener("click", () => this.sortBy(i));
        const cell = make("th", column.kind, button);
        cell.scope = "col";
        return cell;
      });
      this.body = make("tbody");
      const table = make("table", "table", make("thead", "", make("tr", "", ...this.heads)), this.body);
      table.setAttribute("aria-label", what);
      this.said = make("output");
      this.moves = [["« First", () => 0], ["‹ Back", () => this.page - 1],
        ["Next ›", () => this.page + 1], ["Last »", () => this.pages - 1]]
        .map(([label, to]) => {
          const button = make("button", "", label);
          button.type = "button";
          button.addEventListener("click", () => { this.page = to(); this.draw(); });
          return button;
        });
      place.append(make("div", "sheet", table), make("div", "pager", this.said, ...this.moves));
      this.arrange();
    }
    sortBy(i) {
      const again = this.sort[0] === i;
      this.sort = [i, again ? -this.sort[1] : this.columns[i].first || 1];
      this.arrange();
    }
    filter(keep) { this.keep = keep; this.arrange(); }
    arrange() {
      const [at, direction] = this.sort;
      const key = this.columns[at].key;
      const shown = [];
      for (let i = 0; i < this.rows.length; i++) if (this.keep(this.rows[i], i)) shown.push(i);
      const keys = new Map(shown.map((i) => [i, key(this.rows[i])]));
      shown.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        if (x === y) return a - b;
        if (x === null || y === null) return x === null ? 1 : -1; // unknown values come last
        return (x < y ? -1 : 1) * direction;
      });
      this.shown = shown;
      this.page = 0;
      this.draw();
    }
    get pages() { return Math.max(1, Math.ceil(this.shown.length / PER_PAGE)); }
    draw() {
      const from = this.page * PER_PAGE;
      const part = this.shown.slice(from, from + PER_PAGE);
      this.body.replaceChildren(...part.map((i) => make("tr", "",
        ...this.columns.map((column) => make("td", column.kind, column.cell(this.rows[i], i))))));
      if (!part.length) {
        const cell = make("td", "empty", `No ${this.what.toLowerCase()} match.`);
        cell.colSpan = this.columns.length;
        this.body.append(make("tr", "", cell));
      }
      const total = this.shown.length.toLocaleString("en");
      this.said.textContent = part.length
        ? `${(from + 1).toLocaleString("en")}–${(from + part.length).toLocaleString("en")} of ${total}`
        : "0";
      this.moves.forEach((button, i) => {
        button.disabled = i < 2 ? this.page === 0 : this.page >= this.pages - 1;
      });
      this.heads.forEach((cell, i) => cell.setAttribute("aria-sort",
        this.sort[0] !== i ? "none" : this.sort[1] > 0 ? "ascending" : "descending"));
    }
  }

  /* --- files --- */

  const distances = files.map((row) => row[F.distance]).filter((value) => value !== null && value > 0);
  const least = Math.max(1e-3, distances.reduce((a, b) => Math.min(a, b), limit || 1));
  const most = Math.min(distances.reduce((a, b) => Math.max(a, b), (limit || 1) * 1.2), (limit || 1) * 50);
  const along = (value) =>
    100 * Math.min(1, Math.max(0, Math.log(Math.max(value, least) / least) / Math.log(most / least)));

  /* each file has a threshold of its own: it may depend on its length and band */
  function meter(row) {
    const [value, own] = [row[F.distance], row[F.distance_threshold]];
    if (value === null || own === null || most <= least) return null;
    const [bar, mark] = [make("i", value > own ? "far" : ""), make("b")];
    bar.style.width = `${along(value)}%`;
    mark.style.left = `${along(own)}%`;
    const whole = make("span", "meter", bar, mark);
    whole.setAttribute("aria-hidden", "true");
    return whole;
  }
  function opener(row, i) {
    const link = make("a", "name", row[F.id]);
    link.href = `#file=${i}`;
    link.title = row[F.id];
    return link;
  }
  const reasons = (row) =>
    row[F.error] ? row[F.error][1] : row[F.findings].map((finding) => finding[1]).join("; ");
  function cut(text) {
    return text.length > 110 ? `${text.slice(0, 107)}…` : text;
  }
  /* by verdict, then by p-value, then by distance */
  const worst = (row) => gravity.get(word(row[F.verdict])) * 4 +
    (row[F.p_value] === null ? 2 : row[F.p_value]) - Math.min(row[F.distance] || 0, 1000) * 1e-7;
  const table = new PagedTable($("files-table"), "Files", [
    { label: "file", key: (row) => row[F.id], cell: opener },
    { label: group, kind: "less", key: (row) => word(row[F.speaker]), cell: (row) => word(row[F.speaker]) },
    { label: "verdict", title: "sorts the most severe verdict first",
      key: worst,
      cell: (row) => verdict(word(row[F.verdict])) },
    { label: "distance", kind: "number", first: -1, title: `${distance}${meaning ? ` (${meaning})` : ""}; the mark is the threshold`,
      key: (row) => row[F.distance],
      cell: (row) => make("span", "", number(row[F.distance], 2), meter(row)) },
    { label: "p", kind: "number least", title: `p-value: ${share}`,
      key: (row) => row[F.p_value], cell: (row) => small(row[F.p_value]) },
    { label: "q", kind: "number less", title: "q-value: expected share of clean files among those at least as far off",
      key: (row) => row[F.q_value], cell: (row) => small(row[F.q_value]) },
    { label: "prediction", kind: "less", of: F.named, title: "label that the model predicts",
      key: (row) => row[F.named] || "", cell: (row) => row[F.named] || "" },
    { label: "consistency", of: F.consistency, kind: "number less", title: "mean cosine similarity to the speaker’s other files",
      key: (row) => row[F.consistency], cell: (row) => number(row[F.consistency], 2) },
    { label: "seconds", of: F.duration_s, kind: "number less", first: -1,
      key: (row) => row[F.duration_s], cell: (row) => number(row[F.duration_s], 1) },
    { label: "why", kind: "less", key: reasons, cell: (row) => cut(reasons(row)) },
  ].filter((column) => !("of" in column) || column.of !== undefined), files, [2, 1]);

  const kinds = [["all", files.length, () => true]];
  const clean = head.verdicts.clean || 0;
  const attention = files.length - clean;
  if (attention && clean) kinds.push(["not clean", attention, (name) => name !== "clean"]);
  for (const name of head.order)
    if (head.verdicts[name]) kinds.push([name, head.verdicts[name], (other) => other === name]);
  let chosen = kinds[0];
  let texts = null;
  const buttons = kinds.map((kind) => {
    const count = kind[1].toLocaleString("en");
    const label = gravity.has(kind[0]) ? verdict(kind[0]) : kind[0];
    const button = make("button", "", label, ` ${count}`);
    button.type = "button";
    button.addEventListener("click", () => { chosen = kind; filter(); });
    return button;
  });
  $("verdicts").append(...buttons);

  function filter() {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(kinds[i] === chosen)));
    const asked = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    texts = texts || files.map((row) =>
      `${row[F.id]}\n${word(row[F.speaker])}\n${reasons(row)}\n${row[F.sha256] || ""}`.toLowerCase());
    table.filter((row, i) =>
      chosen[2](word(row[F.verdict])) && asked.every((part) => texts[i].includes(part)));
  }
  let waiting = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === 0)));

  /* --- speakers --- */

  function toFiles(row) {
    const name = word(row[S.speaker]);
    const button = make("button", "", name || "(empty)");
    button.type = "button";
    button.title = `show this ${group}’s files`;
    button.addEventListener("click", () => {
      $("search").value = "";
      chosen = kinds[0];
      filter();
      table.filter((file) => file[F.speaker] === row[S.speaker]);
      table.said.append(` (${group} ${name})`);
      $("files-heading").focus();
    });
    return button;
  }
  /* what the enrolment gate says; its list is in the order of _GATE in rows.py */
  const of = (row, i) => (row[S.gate] ? row[S.gate][i] : null);
  const gated = speakers.some((row) => row[S.gate]);
  const DECISIONS = ["reject", "ask", "record more", "enrol"];
  const decision = { label: "decision", title: "decision of the enrolment gate",
    key: (row) => DECISIONS.indexOf(of(row, 5)), cell: (row) => make("b", "", of(row, 5) || "") };
  function note(row, [, why, remedy]) {  /* the decision has a column of its own */
    const own = `${of(row, 5)}: `;
    return `${why.startsWith(own) ? why.slice(own.length) : why}; ${word(remedy)}`;
  }
  function gateColumns() {
    const cohesion = (row) => (of(row, 2) === null ? "" : number(of(row, 2), 2) +
      (of(row, 3) === null ? "" : ` [${number(of(row, 3), 2)}, ${number(of(row, 4), 2)}]`));
    return [
      { label: "usable", kind: "number", first: -1, key: (row) => of(row, 0), cell: (row) => (row[S.gate] ? String(of(row, 0)) : "") },
      { label: "speech", kind: "number", first: -1, key: (row) => of(row, 1), cell: (row) => (row[S.gate] ? `${number(of(row, 1), 1)} s` : "") },
      { label: "cohesion", kind: "number less", title: "mean cosine similarity of the pairs of usable recordings, with its 95 % interval",
        key: (row) => of(row, 2), cell: cohesion },
    ];
  }
  new PagedTable($("speakers-table"), groups, [
    { label: group, key: (row) => word(row[S.speaker]), cell: toFiles },
    ...(gated ? [decision] : []),
    { label: "verdict", title: "most severe verdict of the files",
      key: (row) => gravity.get(word(row[S.verdict])) - row[S.flagged] / (row[S.files] + 1),
      cell: (row) => verdict(word(row[S.verdict])) },
    { label: "files", kind: "number", first: -1, key: (row) => row[S.files], cell: (row) => String(row[S.files]) },
    { label: "flagged", kind: "number", first: -1, key: (row) => row[S.flagged], cell: (row) => String(row[S.flagged]) },
    { label: "not judged", kind: "number least", first: -1, key: (row) => row[S.failed], cell: (row) => String(row[S.failed]) },
    ...(gated ? gateColumns() : []),
    { label: "notes", kind: "less", key: (row) => row[S.findings].length,
      cell: (row) => row[S.findings].map((finding) => note(row, finding)).join(" ") },
  ], speakers, [1, 1]);

  /* --- one file --- */

  const panel = $("panel");
  let opened = -1;

  function facts(row) {
    const list = make("dl");
    const say = (name, value) => { if (value) list.append(make("dt", "", name), make("dd", "", value)); };
    const against = (value, digits, bound) =>
      value === null ? "" : number(value, digits) + (bound === undefined || bound === null ? "" : ` (threshold ${number(bound, digits)})`);
    say(capital(group), word(row[F.speaker]));
    if (F.named !== undefined) say("Prediction", row[F.named]);
    const far = against(row[F.distance], 2, row[F.distance_threshold]);
    say(capital(distance), far && meaning ? `${far}; it is ${meaning}` : far);
    say("p-value", row[F.p_value] === null ? "" : `${small(row[F.p_value])}, the ${share}`);
    say("q-value", row[F.q_value] === null ? ""
      : `${small(row[F.q_value])}, the expected share of clean files among those at least as far off`);
    if (F.duration_s !== undefined) sound(row, say, against);
    if (F.height !== undefined && row[F.height] !== null)
      say("Image", `${row[F.width]} × ${row[F.height]} pixels, ${word(row[F.encoding])}`);
    say("Changes when read", row[F.changes].map(word).join("; "));
    say(capital(same), row[F.duplicate_of].join(", "));
    say("SHA-256", row[F.sha256]);
    return list;
  }
  function sound(row, say, against) {
    say("Mean cosine similarity to the speaker’s other files", against(row[F.consistency], 2, head.limits.consistency_threshold));
    say("Distance of the spectrum from clean ones", against(row[F.domain_distance], 1, head.limits.domain_threshold));
    if (row[F.duration_s] !== null)
      say("Recording", `${number(row[F.duration_s], 1)} s, ${row[F.sample_rate_hz]} Hz, ` +
        `${row[F.channels] === 1 ? "1 channel" : `${row[F.channels]} channels`}, ${word(row[F.encoding])}`);
    const seconds = (value) => (value === null ? "" : `${number(value, 1)} s`);
    say("Sound, without silence", seconds(row[F.sound_s]));
    say("Most suspicious window begins at", seconds(row[F.window_s]));
    say("What this window resembles most", row[F.resembles]);
    if (row[F.speech_s] !== null) {
      say("Speech", seconds(row[F.speech_s]));
      say("Estimated signal-to-noise ratio", row[F.snr_db] === null ? "not evaluated: no speech" : `${number(row[F.snr_db], 0)} dB`);
      say("Level of the speech", row[F.level_dbfs] === null ? "" : `${number(row[F.level_dbfs], 0)} dBFS`);
      say("Smallest cosine similarity between two parts", row[F.part_cosine] === null ? "not evaluated: too little speech" : number(row[F.part_cosine], 2));
    }
    say("Highest frequency with content", row[F.bandwidth_hz] === null ? "" : `${(row[F.bandwidth_hz] / 1000).toFixed(1)} kHz`);
  }
  function found(row) {
    const list = make("ul", "found");
    const say = (kind, why, remedy) => list.append(
      make("li", kind, verdict(kind), make("p", "", `${capital(why)}.`), make("p", "", make("b", "", "What to do: "), `${remedy}.`)));
    for (const [risk, why, remedy] of row[F.findings]) say(word(risk), why, word(remedy));
    if (row[F.error]) say("error", row[F.error][1], word(row[F.error][2]));
    return list.childElementCount ? list : make("p", "", "Nothing was found, which does not prove that the file is harmless.");
  }
  function show(i) {
    const row = files[i];
    $("panel-title").textContent = row[F.id];
    const parts = [found(row)];
    if (row[F.link]) {
      const link = make("a", "", "Open the file");
      link.href = row[F.link];
      link.rel = "noopener";
      parts.push(make("p", "", link));
    }
    parts.push(facts(row));
    const detail = $(`detail-${i}`);
    if (detail) parts.push(detail.content.cloneNode(true));
    else if (word(row[F.verdict]) !== "clean" && word(row[F.verdict]) !== "error")
      parts.push(make("p", "quiet", head.drawn
        ? `Only the ${head.drawn} most severe files were drawn; nip-audio report --details N draws more.`
        : "No files were drawn; nip-audio report draws them."));
    $("panel-content").replaceChildren(...parts);
    const at = table.shown.indexOf(i);
    $("previous").disabled = at <= 0;
    $("next").disabled = at < 0 || at >= table.shown.length - 1;
    if (!panel.open) panel.showModal();
    panel.scrollTop = 0;
    opened = i;
  }
  function step(by) {
    const to = table.shown[table.shown.indexOf(opened) + by];
    if (opened >= 0 && to !== undefined) location.replace(`#file=${to}`);
  }
  function follow() {
    const asked = /^#file=(\d+)$/.exec(location.hash);
    if (asked && Number(asked[1]) < files.length) show(Number(asked[1]));
    else if (panel.open) panel.close();
  }
  panel.addEventListener("close", () => {
    $("panel-content").replaceChildren(); // stops the players
    const at = table.shown.indexOf(opened);
    if (location.hash.startsWith("#file=")) history.replaceState(null, "", location.pathname + location.search);
    if (at >= 0 && Math.floor(at / PER_PAGE) !== table.page) {
      table.page = Math.floor(at / PER_PAGE);
      table.draw();
    }
    const back = table.body.querySelector(`a[href="#file=${opened}"]`);
    if (back) back.focus();
    opened = -1;
  });
  panel.addEventListener("click", (event) => { if (event.target === panel) panel.close(); });
  panel.addEventListener("keydown", (event) => {
    if (event.target.closest("audio, .wide") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => panel.close());
  window.addEventListener("hashchange", follow);
  follow();
})();

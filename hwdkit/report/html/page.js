(() => {
  "use strict";
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  const theme = document.querySelector("#theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement.style;
    const dark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.colorScheme = dark ? "light" : "dark";
  });

  const compare = (column, isText, direction) => (a, b) => {
    const x = a.cells[column].dataset.value, y = b.cells[column].dataset.value;
    if (isText) return direction * x.localeCompare(y);
    if (x === "" || y === "") return (x === "") - (y === ""); // the unknown stay last either way
    return direction * (Number(x) - Number(y));
  };

  all("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    const heads = all("th[aria-sort]", table);
    const tools = table.closest(".scroll").previousElementSibling;
    const status = tools.querySelector(".sorted");
    const original = [...body.rows];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      const isText = head.dataset.kind === "text";
      const [first, second] = isText ? ["ascending", "descending"] : ["descending", "ascending"];
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === first ? second : now === second ? "none" : first;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const sorted = compare(column, isText, next === "ascending" ? 1 : -1);
        body.append(...(next === "none" ? original : [...original].sort(sorted)));
        status.textContent = next === "none" ? status.dataset.order : `Sorted by ${button.dataset.label}, ${next}`;
      });
    });
    const filter = tools.querySelector(".filter");
    filter?.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      original.forEach((row) => { row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(wanted); });
    });
  });

  const matrix = document.querySelector("#matrix");
  if (matrix) {
    const counts = JSON.parse(document.querySelector("#counts").textContent);
    const [names, heads] = [all(".sides bdi", matrix), all(".heads bdi", matrix)];
    const field = matrix.querySelector(".field");
    const cursor = matrix.querySelector(".cursor");
    const readout = document.querySelector("#readout");
    const zoom = document.querySelector("#zoom");
    const pictures = all("svg", field);
    const last = names.length - 1;
    const place = { row: 0, column: 0 };
    const model = () => Number(document.querySelector("input[name=matrix]:checked").value);

    const show = (row, column) => {
      Object.assign(place, { row: Math.min(last, Math.max(0, row)), column: Math.min(last, Math.max(0, column)) });
      cursor.hidden = false;
      cursor.style.setProperty("--row", place.row);
      cursor.style.setProperty("--column", place.column);
      names.forEach((name, index) => name.classList.toggle("on", index === place.row));
      heads.forEach((head, index) => head.classList.toggle("on", index === place.column));
      const line = counts[model()][place.row];
      const [pixels, total] = [line[place.column], line.reduce((sum, one) => sum + one, 0)];
      const share = total ? `${(100 * pixels / total).toFixed(2)} % of its pixels` : "has no pixels";
      const what = place.row === place.column ? "found" : `taken for ${names[place.column].textContent}`;
      const who = all("input[name=matrix] + span")[model()].textContent.trim();
      readout.textContent = `${names[place.row].textContent} ${what} by ${who}: ${share}, ` +
        `${pixels.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    };

    field.addEventListener("pointermove", (event) => {
      const box = field.getBoundingClientRect();
      const at = (offset, size) => Math.floor((last + 1) * offset / size);
      show(at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width));
    });
    field.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      if (cursor.hidden) show(0, 0);
      else show(place.row + step[0], place.column + step[1]);
      cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    all("input[name=matrix]").forEach((input) => input.addEventListener("change", () => {
      pictures.forEach((picture, index) => picture.toggleAttribute("hidden", index !== model()));
      if (!cursor.hidden) show(place.row, place.column);
    }));

    const resize = () => {
      matrix.style.setProperty("--cell", `${zoom.value}px`);
      matrix.classList.toggle("fine", zoom.value < 20); // numbers would not be readable
      matrix.classList.toggle("tiny", zoom.value < 8); // nor would names; the line above the matrix says them
    };
    const room = matrix.parentElement.clientWidth - matrix.querySelector(".corner").offsetWidth;
    zoom.value = Math.min(40, Math.max(last < 32 ? 26 : 12, Math.floor(room / (last + 1))));
    zoom.addEventListener("input", resize);
    resize();
  }

  const opacity = document.querySelector("#opacity");
  if (opacity) {
    const apply = () => document.documentElement.style.setProperty("--mask", opacity.value / 100);
    opacity.addEventListener("input", apply);
    apply();
  }

  const viewer = document.querySelector("#viewer");
  if (viewer) {
    const examples = all(".example");
    const [stage, title, maps] = [".stage", "#viewer-title", "#maps"].map((name) => viewer.querySelector(name));
    let [image, tile] = [0, 0];

    const show = (nextImage, nextTile) => {
      image = (nextImage + examples.length) % examples.length;
      const tiles = all(".tile", examples[image]);
      tile = (nextTile + tiles.length) % tiles.length;
      const stack = document.createElement("div");
      stack.className = "stack";
      stack.append(...[...tiles[tile].querySelector(".stack").children].map((child) => child.cloneNode()));
      stage.style.cssText = examples[image].style.cssText;
      stage.classList.toggle("differs", tiles[tile].classList.contains("differs"));
      stage.replaceChildren(stack);
      title.textContent = `${tiles[tile].dataset.title}, ${examples[image].querySelector("h3 bdi").textContent}`;
      all("button", maps).forEach((button, index) => button.setAttribute("aria-pressed", index === tile));
    };

    all(".tile", examples[0]).forEach((one, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = one.dataset.title;
      button.addEventListener("click", () => show(image, index));
      maps.append(button);
    });
    examples.forEach((example, index) => all("button.stack", example).forEach((button, position) => {
      button.addEventListener("click", () => { show(index, position); viewer.showModal(); });
    }));
    all("[data-image]", viewer).forEach((button) => {
      button.addEventListener("click", () => show(image + Number(button.dataset.image), tile));
    });
    viewer.querySelector("#close").addEventListener("click", () => viewer.close());
    viewer.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      show(image + step[0], tile + step[1]);
    });
  }
})();

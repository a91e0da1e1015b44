"use strict";
(() => {
  const parsed = (element) => JSON.parse(element.textContent);
  const themes = parsed(document.getElementById("themes"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const figures = [...document.querySelectorAll("figure.plot")];
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  function draw(figure) {
    const { data, layout } = figure.contents;
    return Plotly.react(
      figure.drawing,
      data,
      {
        ...layout,
        template: themes[dark.matches ? "dark" : "light"],
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: "system-ui, sans-serif" },
        // A finger that drags scrolls the page.
        dragmode: touch.matches ? false : "zoom",
      },
      config,
    );
  }

  for (const figure of figures) {
    figure.contents = parsed(figure.querySelector("script"));
    figure.drawing = figure.querySelector(".drawing");
    draw(figure);
  }
  dark.addEventListener("change", () => figures.forEach(draw));

  // The maps: every point shows its image.
  const maps = figures.filter((figure) => figure.classList.contains("map"));
  if (!maps.length) return;
  const points = parsed(document.getElementById("points"));
  const tip = document.getElementById("tip");
  const [picture, group, name] = tip.children;
  const { columns } = points;
  picture.style.backgroundImage = `url(${points.sprite})`;

  function show(figure, point) {
    const index = point.customdata;
    tip.hidden = false;
    // By its own size: the tiles are drawn as large as the place for one.
    const side = picture.clientWidth;
    picture.style.backgroundSize = `${columns * side}px auto`;
    picture.style.backgroundPosition =
      `${-side * (index % columns)}px ${-side * Math.floor(index / columns)}px`;
    group.textContent = points.groups[index];
    name.textContent = points.ids[index];
    const place = figure.drawing.getBoundingClientRect();
    const { x0, x1, y0 } = point.bbox;
    const right = place.left + x1 + 12;
    const fits = right + tip.offsetWidth < innerWidth;
    tip.style.left = `${fits ? right : Math.max(4, place.left + x0 - 12 - tip.offsetWidth)}px`;
    tip.style.top =
      `${Math.max(4, Math.min(place.top + y0 - 40, innerHeight - tip.offsetHeight - 4))}px`;
  }

  for (const figure of maps) {
    const { drawing } = figure;
    const said = figure.querySelector(".said");
    let at = null;
    drawing.on("plotly_hover", ({ points: [point] }) => show(figure, point));
    drawing.on("plotly_unhover", () => { tip.hidden = true; });
    drawing.addEventListener("blur", () => { tip.hidden = true; });
    addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

    const all = figure.contents.data.flatMap((trace, curveNumber) =>
      trace.x.map((x, pointNumber) => ({
        x, y: trace.y[pointNumber], index: trace.customdata[pointNumber], curveNumber, pointNumber,
      })));
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") tip.hidden = true;
      const turn = turns[event.key];
      if (!turn) return;
      event.preventDefault();
      at = at ? nearest(at, turn) : all[0];
      Plotly.Fx.hover(drawing, [at]);
      said.textContent = `${points.groups[at.index]}: ${points.ids[at.index]}`;
    });

    // The nearest point in a direction; what lies aside counts as farther.
    function nearest(from, [right, up]) {
      let best = from, least = Infinity;
      for (const point of all) {
        const dx = point.x - from.x, dy = point.y - from.y;
        const along = dx * right + dy * up, aside = Math.abs(dx * up) + Math.abs(dy * right);
        const cost = along + 3 * aside;
        if (along > 0 && cost < least) [best, least] = [point, cost];
      }
      return best;
    }
  }
})();

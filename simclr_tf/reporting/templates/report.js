"use strict";
(async () => {
  const parsed = (element) => JSON.parse(element.textContent);
  const themes = parsed(document.getElementById("themes"));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const figures = [...document.querySelectorAll("figure.plot")];
  const config = {
    responsive: true,
    displaylogo: false,
    // On a touch screen, where a finger scrolls the page, its buttons are the way to zoom.
    modeBarButtonsToRemove: [
      "select2d", "lasso2d", "autoScale2d", ...(touch.matches ? ["zoom2d", "pan2d"] : []),
    ],
    ...(touch.matches ? { displayModeBar: true } : {}),
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
        modebar: { bgcolor: "rgba(0,0,0,0)" },
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
    await draw(figure);
    // So that the page answers meanwhile.
    await new Promise((done) => setTimeout(done));
  }
  dark.addEventListener("change", () => figures.forEach(draw));

  // The maps: every point shows its image.
  const maps = figures.filter((figure) => figure.classList.contains("map"));
  const points = maps.length ? parsed(document.getElementById("points")) : {};
  const tip = document.getElementById("tip");
  const [picture, group, name] = tip.children;
  const { columns } = points;
  if (maps.length) picture.style.backgroundImage = `url(${points.sprite})`;

  function show({ drawing }, { x, y, index }) {
    tip.hidden = false;
    // By its own size: the tiles are drawn as large as the place for one.
    const side = picture.clientWidth;
    picture.style.backgroundSize = `${columns * side}px auto`;
    picture.style.backgroundPosition =
      `${-side * (index % columns)}px ${-side * Math.floor(index / columns)}px`;
    group.textContent = points.groups[index];
    name.textContent = points.ids[index];
    const { xaxis, yaxis } = drawing._fullLayout;
    const place = drawing.getBoundingClientRect();
    const left = place.left + xaxis._offset + xaxis.l2p(x);
    const top = place.top + yaxis._offset + yaxis.l2p(y) - 40;
    const fits = left + 16 + tip.offsetWidth < innerWidth;
    const tipLeft = fits ? left + 16 : Math.max(4, left - 16 - tip.offsetWidth);
    tip.style.left = `${scrollX + tipLeft}px`;
    tip.style.top = `${scrollY + Math.max(4, Math.min(top, innerHeight - tip.offsetHeight - 4))}px`;
  }

  for (const figure of maps) {
    const { drawing } = figure;
    const said = figure.querySelector(".said");
    let at = null;
    drawing.on("plotly_hover", ({ points: [{ x, y, customdata }] }) =>
      show(figure, { x, y, index: customdata }));
    drawing.on("plotly_unhover", () => { tip.hidden = true; });
    drawing.addEventListener("blur", () => { tip.hidden = true; });

    const all = figure.contents.data.flatMap(({ x, y, customdata }) =>
      customdata.map((index, i) => ({ x: x[i], y: y[i], index })));
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    drawing.addEventListener("keydown", (event) => {
      if (event.key === "Escape") tip.hidden = true;
      const turn = turns[event.key];
      if (!turn) return;
      event.preventDefault();
      at = at ? nearest(at, turn) : all[0];
      show(figure, at);
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
  document.documentElement.dataset.drawn = "";
})();

window.onload = function () {
  window.ui = SwaggerUIBundle({
    "url": "/api/openapi.json",
    "dom_id": "#swagger-ui",
    "deepLinking": true,
    // Unless it is opened on localhost, the page would send the document to swagger.io for validation.
    "validatorUrl": "none",
    "presets": [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    "plugins": [SwaggerUIBundle.plugins.DownloadUrl],
    "layout": "StandaloneLayout",
  });
};
